//! The process metrics that Prometheus's client libraries report, by their usual names, and the running
//! version. Without /proc, only the version.

use std::fmt::Write as _;
use std::fs;

/// Appends these metrics to a page.
pub(crate) fn write(text: &mut String) {
    let version = env!("CARGO_PKG_VERSION");
    let name = "freehold_build_info";
    let _ = writeln!(text, "# HELP {name} The version that runs\n# TYPE {name} gauge");
    let _ = writeln!(text, "{name}{{version=\"{version}\"}} 1");
    let Some(figures) = Figures::read() else { return };
    for (name, kind, help, value) in [
        ("process_cpu_seconds_total", "counter", "Processor time used", Some(figures.cpu_seconds)),
        ("process_start_time_seconds", "gauge", "When it began, since 1970", figures.start_seconds),
        ("process_resident_memory_bytes", "gauge", "Resident memory", Some(figures.resident)),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory", Some(figures.virtual_bytes)),
        ("process_threads", "gauge", "Threads", Some(figures.threads)),
        ("process_open_fds", "gauge", "Open files and sockets", figures.open_files),
        ("process_max_fds", "gauge", "The most of them that there may be", figures.files_max),
    ] {
        if let Some(value) = value {
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
        }
    }
}

struct Figures {
    cpu_seconds: f64,
    start_seconds: Option<f64>,
    resident: f64,
    virtual_bytes: f64,
    threads: f64,
    open_files: Option<f64>,
    files_max: Option<f64>,
}

impl Figures {
    /// From /proc/self/stat (proc_pid_stat(5)), whose second field may contain spaces and parentheses.
    fn read() -> Option<Figures> {
        let stat = fs::read_to_string("/proc/self/stat").ok()?;
        let after_name: Vec<f64> = stat
            .rsplit_once(')')?
            .1
            .split_whitespace()
            .map(|field| field.parse().unwrap_or(0.0))
            .collect();
        // The first of these is the third field.
        let field = |number: usize| after_name.get(number - 3).copied();
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let began = |booted: f64| Some(booted + field(22)? / ticks);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        Some(Figures {
            cpu_seconds: (field(14)? + field(15)?) / ticks,
            start_seconds: booted_at().and_then(began),
            resident: field(24)? * rustix::param::page_size() as f64,
            virtual_bytes: field(23)?,
            threads: field(20)?,
            // Reading the folder opens a file, too.
            open_files: fs::read_dir("/proc/self/fd").ok().map(|all| all.count() as f64 - 1.0),
            files_max: limit.current.map(|most| most as f64),
        })
    }
}

fn booted_at() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_of_this_process() {
        let mut text = String::new();
        write(&mut text);
        let value = |name: &str| -> f64 {
            let line = text.lines().find(|line| line.split(' ').next() == Some(name));
            line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
                .split(' ')
                .nth(1)
                .unwrap()
                .parse()
                .unwrap()
        };
        assert!(
            text.contains(&format!("{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))),
            "{text}"
        );
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - value("process_start_time_seconds");
        assert!((-5.0..86_400.0).contains(&age), "it began {age} s ago");
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        let before = value("process_open_fds");
        let _held: Vec<_> = (0..50).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let mut text = String::new();
        write(&mut text);
        let line = text.lines().find(|line| line.starts_with("process_open_fds ")).unwrap();
        let after: f64 = line.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(after >= before + 20.0 && value("process_max_fds") >= after, "{before}, {after}");
        assert!(value("process_threads") >= 1.0 && value("process_cpu_seconds_total") >= 0.0);
    }
}
