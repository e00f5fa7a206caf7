//! `virtnet completion`: a script that completes this command's words in a shell.

use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  virtnet completion bash > /usr/share/bash-completion/completions/virtnet
  virtnet completion zsh > /usr/share/zsh/site-functions/_virtnet
  virtnet completion fish > /usr/share/fish/vendor_completions.d/virtnet.fish";

/// What `completion` is told.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs it.
pub(crate) fn run(arguments: &Arguments, mut command: clap::Command) -> String {
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, name, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}
