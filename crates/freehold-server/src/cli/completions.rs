//! `freehold completions SHELL`.

use clap::Command;
use clap_complete::Shell;

use super::output::Output;

#[derive(clap::Args)]
#[command(
    after_help = "For bash: `source <(freehold completions bash)` in ~/.bashrc. For zsh: the output goes to a \
                        file _freehold in a folder of $fpath. For fish: to ~/.config/fish/completions/freehold.fish."
)]
pub(super) struct CompletionsArgs {
    /// Whose language it is to be in
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs, mut command: Command) {
    // Written to memory first: the generators panic if the pipe is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "freehold", &mut script);
    Output::text(String::from_utf8_lossy(&script).trim_end());
}
