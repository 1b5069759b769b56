//! The faults, each with its repair.

use std::io::Write as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::house::House;
use super::report::Bound;
use crate::support::connect;

/// How long something is gone, held or taken before it is made good.
const AWAY: Duration = Duration::from_secs(3);
/// As the issue of it is judged: a primary that is replaced takes writes again.
const FAILOVER_MAX: Duration = Duration::from_secs(5);
/// Longer than a request may take, and time for a server that is busy with other things.
const RECOVERY_MAX: Duration = Duration::from_secs(30);
/// Less than tokens are good for, as set here.
const CLOCK_SECONDS: i64 = 240;
const SLOW_CLIENTS: usize = 150;
const A_MEGABYTE_OF_LOG: &str =
    "SELECT pg_logical_emit_message(false, 'chaos', repeat('x', 1024 * 1024))";
/// More than a primary keeps files for.
const LOG_MAX: usize = 2000;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Injury {
    ServerKilled,
    PoolerKilled,
    ReplicaKilled,
    ReplicaFrozen,
    RedisKilled,
    RedisFrozen,
    PrimaryRestarted,
    PrimaryKilled,
    DiskFull,
    Failover,
    Stall,
    Exhaustion,
    SlowClients,
    UnreadAnswers,
    BackgroundSessionsEnded,
    ClockAhead,
    ClockBehind,
}

use Injury::{
    BackgroundSessionsEnded, ClockAhead, ClockBehind, DiskFull, Exhaustion, Failover, PoolerKilled,
    PrimaryKilled, PrimaryRestarted, RedisFrozen, RedisKilled, ReplicaFrozen, ReplicaKilled,
    ServerKilled, SlowClients, Stall, UnreadAnswers,
};

impl Injury {
    pub(super) const ALL: [Injury; 17] = [
        ServerKilled,
        ReplicaKilled,
        ReplicaFrozen,
        RedisKilled,
        RedisFrozen,
        PoolerKilled,
        Stall,
        Exhaustion,
        SlowClients,
        UnreadAnswers,
        BackgroundSessionsEnded,
        ClockAhead,
        ClockBehind,
        PrimaryRestarted,
        PrimaryKilled,
        DiskFull,
        Failover,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            ServerKilled => "a server killed (-9), started again after 3 s",
            ReplicaKilled => "a replica killed (-9), started again after 3 s",
            ReplicaFrozen => "a replica frozen for 3 s",
            RedisKilled => "Redis killed (-9), started again after 3 s",
            RedisFrozen => "Redis frozen for 3 s",
            PoolerKilled => "PgBouncer killed (-9), started again at once",
            Stall => "the wire between PgBouncer and the primary stalled for 3 s",
            Exhaustion => "every connection of the primary taken by another, ours ended, for 3 s",
            SlowClients => "300 clients that never finish their requests, for 3 s",
            UnreadAnswers => {
                "300 clients of one tenant that ask for 7 MB each and read nothing, for 3 s"
            }
            BackgroundSessionsEnded => {
                "every session of the servers' background work ended, ten times a second for 3 s"
            }
            ClockAhead => "the clock of a server 4 min ahead for 3 s, and put back",
            ClockBehind => "the clock of a server 4 min behind for 3 s, and put forward",
            PrimaryRestarted => "the primary restarted",
            PrimaryKilled => "the primary killed (-9), started again at once",
            DiskFull => {
                "the primary's disk full for 3 s, its log not to be written, then room again"
            }
            Failover => "the primary killed (-9) for good, a replica promoted after 3 s",
        }
    }

    pub(super) fn bound(self) -> Bound {
        let failed_max = match self {
            ReplicaKilled
            | ReplicaFrozen
            | RedisKilled
            | RedisFrozen
            | SlowClients
            | UnreadAnswers
            | BackgroundSessionsEnded
            | ClockAhead => Some(0),
            // A server that is behind takes tokens for not good yet, as it should.
            _ => None,
        };
        let first_write_max = if self == Failover { FAILOVER_MAX } else { RECOVERY_MAX };
        Bound { failed_max, first_write_max }
    }

    /// Why it cannot be inflicted here.
    pub(super) fn impossible(self, house: &House) -> Option<String> {
        let missing = match self {
            ClockAhead | ClockBehind if house.lines.clock.is_none() => {
                "libfaketime is not installed"
            }
            DiskFull if house.disk.is_none() => "the primary has no file system of its own",
            _ => return None,
        };
        Some(format!("{}: {missing}", self.name()))
    }

    /// Injects the fault and repairs it. Returns the time from which the installation should recover: for
    /// programs that recover by starting, the time of the start.
    pub(super) async fn inflict(self, house: &mut House) -> Instant {
        match self {
            ServerKilled => {
                let port = house.servers[0].port;
                house.servers[0].running.kill();
                tokio::time::sleep(AWAY).await;
                let repaired = Instant::now();
                house.servers[0] = house.lines.server(0, port).await;
                repaired
            }
            PoolerKilled => {
                house.lines.pooler.kill();
                let repaired = Instant::now();
                tokio::task::block_in_place(|| house.lines.pooler.start_again());
                repaired
            }
            ReplicaKilled => {
                house.replicas[0].kill();
                tokio::time::sleep(AWAY).await;
                let repaired = Instant::now();
                house.replicas[0].start().await;
                repaired
            }
            ReplicaFrozen => {
                house.replicas[0].freeze();
                tokio::time::sleep(AWAY).await;
                house.replicas[0].thaw();
                Instant::now()
            }
            RedisKilled => {
                house.lines.redis.kill();
                tokio::time::sleep(AWAY).await;
                let repaired = Instant::now();
                house.lines.redis.start_again().await;
                repaired
            }
            RedisFrozen => {
                house.lines.redis.stop();
                tokio::time::sleep(AWAY).await;
                house.lines.redis.go_on();
                Instant::now()
            }
            PrimaryRestarted => {
                house.primary.stop();
                let repaired = Instant::now();
                house.primary.start().await;
                repaired
            }
            PrimaryKilled => {
                house.primary.kill();
                let repaired = Instant::now();
                house.primary.start().await;
                repaired
            }
            DiskFull => fill_disk(house).await,
            Failover => {
                house.primary.kill();
                tokio::time::sleep(AWAY).await;
                let repaired = Instant::now();
                house.promote().await;
                repaired
            }
            Stall => {
                house.lines.to_primary.stall();
                tokio::time::sleep(AWAY).await;
                house.lines.to_primary.flow();
                Instant::now()
            }
            ClockAhead => put_clock(house, CLOCK_SECONDS).await,
            ClockBehind => put_clock(house, -CLOCK_SECONDS).await,
            Exhaustion => take_every_connection(house).await,
            BackgroundSessionsEnded => end_background_sessions(house).await,
            UnreadAnswers => {
                let ports = [house.servers[0].port, house.front];
                let token = &house.greedy;
                tokio::task::block_in_place(|| read_nothing(ports, token));
                Instant::now()
            }
            SlowClients => {
                let ports = [house.servers[0].port, house.front];
                let token = house.residents[0].token();
                tokio::task::block_in_place(|| stay_half_said(ports, &token));
                Instant::now()
            }
        }
    }

    /// What remains to be done once all clients are served again.
    pub(super) async fn clear_up(self, house: &mut House) {
        if self == Failover {
            house.fill_up().await;
        }
    }
}

async fn put_clock(house: &House, seconds: i64) -> Instant {
    let clock = house.lines.clock.as_ref().expect("it is not done without");
    clock.put(seconds);
    // The library looks each second.
    tokio::time::sleep(AWAY + Duration::from_secs(1)).await;
    clock.put(0);
    Instant::now()
}

/// Leaves no block for the tables, and then, once the reserve is used up, none for the log: a primary that
/// cannot write it ends repeatedly.
async fn fill_disk(house: &mut House) -> Instant {
    let disk = house.disk.as_ref().expect("it is not done without");
    disk.fill();
    tokio::time::sleep(AWAY).await;
    let superuser = connect(&house.primary.superuser_url()).await;
    let mut written = 0;
    while superuser.query(A_MEGABYTE_OF_LOG, &[]).await.is_ok() {
        disk.fill();
        written += 1;
        assert!(written < LOG_MAX, "a full disk does not keep the primary from writing its log");
    }
    println!("its log took {written} MB more");
    tokio::time::sleep(AWAY).await;
    disk.relieve();
    let repaired = Instant::now();
    house.primary.recover().await;
    repaired
}

/// Takes the free connections, and then repeatedly ends the servers' sessions and takes their connections.
async fn take_every_connection(house: &House) -> Instant {
    const OTHERS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE usename = 'freehold_app' AND application_name <> 'hog'";
    let superuser = connect(&house.lines.superuser_url()).await;
    let url = format!("{}?application_name=hog", house.lines.app_url());
    let mut taken = Vec::new();
    take_what_is_free(&url, &mut taken).await;
    // Counted from here: to take them all takes seconds by itself.
    let began = Instant::now();
    while began.elapsed() < AWAY {
        superuser.query(OTHERS, &[]).await.unwrap();
        take_what_is_free(&url, &mut taken).await;
    }
    let left = "SELECT count(*) FROM pg_stat_activity
        WHERE usename = 'freehold_app' AND application_name <> 'hog'";
    let left: i64 = superuser.query_one(left, &[]).await.unwrap().get(0);
    let taken = taken.len() as i64;
    assert!(left < taken / 10, "{taken} connections were taken, and {left} left to the servers");
    Instant::now()
}

async fn take_what_is_free(url: &str, taken: &mut Vec<tokio_postgres::Client>) {
    while let Ok((client, connection)) = tokio_postgres::connect(url, tokio_postgres::NoTls).await {
        tokio::spawn(connection);
        taken.push(client);
    }
}

/// Ends the sessions of workers, migrations, analytics and change listeners; those of requests come by the
/// pooler.
async fn end_background_sessions(house: &House) -> Instant {
    const END: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE usename IN ('freehold_owner', 'freehold_analytics') OR application_name = 'listener'";
    let superuser = connect(&house.lines.superuser_url()).await;
    let began = Instant::now();
    let mut ended = 0;
    while began.elapsed() < AWAY {
        ended += superuser.query(END, &[]).await.unwrap().len();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(ended >= house.servers.len(), "only {ended} sessions were there to be ended");
    Instant::now()
}

/// Asks for large answers and reads none of them.
fn read_nothing(ports: [u16; 2], token: &str) {
    let names: String = (0..5).map(|n| format!(",a{n}:body")).collect();
    let request = format!(
        "GET /v1/data/papers?select=id{names} HTTP/1.1\r\nHost: x\r\n\
         Authorization: Bearer {token}\r\n\r\n"
    );
    let mut streams = Vec::new();
    for port in ports {
        for _ in 0..SLOW_CLIENTS {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            streams.push(stream);
        }
    }
    std::thread::sleep(AWAY);
}

/// Heads and bodies that are sent byte by byte and never end.
fn stay_half_said(ports: [u16; 2], token: &str) {
    let head = "GET /v1/me HTTP/1.1\r\nHost: x\r\nX-Slow: ".to_owned();
    let body = format!(
        "POST /v1/data/customers HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{{\"email\": \""
    );
    let mut streams = Vec::new();
    for port in ports {
        for n in 0..SLOW_CLIENTS {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            let text = if n % 2 == 0 { &head } else { &body };
            stream.write_all(text.as_bytes()).unwrap();
            streams.push(stream);
        }
    }
    let began = Instant::now();
    while began.elapsed() < AWAY {
        for stream in &mut streams {
            // The server may have closed the connection.
            let _ = stream.write_all(b"a");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}
