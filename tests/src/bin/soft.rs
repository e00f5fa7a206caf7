//! `make soft`: a DPU in software with two guests that reach each other through functions declared by kubectl.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::{Parser, Subcommand};
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;
use virtnet_tests::guest::Done;
use virtnet_tests::soft::door::ask;
use virtnet_tests::soft::{CONTROLLER, GUESTS, LOCAL, Soft, line};

/// How often it is looked whether all still run.
const LOOK: Duration = Duration::from_millis(500);

/// A DPU in software with two guests that reach each other through functions declared by kubectl: a session that is shown as it
/// runs. On a terminal all stays up afterwards, until Ctrl-C.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    /// End after the session, on a terminal too
    #[arg(long)]
    once: bool,
    #[command(subcommand)]
    command: Option<InGuest>,
}

#[derive(Debug, Subcommand)]
enum InGuest {
    /// A shell in a guest, or one command: what guest-a and guest-b do
    #[command(hide = true)]
    Guest {
        /// Where it is asked to run a command
        door: PathBuf,
        /// Where its shell is
        line: PathBuf,
        /// The command, which sh(1) gets as one line
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

/// The root of the tree, where people stand who type this.
const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
/// The controller over the device, and the API with agent and operator over the controller.
const PROGRAMS: [(&str, &str); 2] = [
    (
        CONTROLLER,
        "nsenter --net=$SOFT/netns virtnetd --device soft --soft-config $SOFT/soft.yaml --config $SOFT/virtnet.conf \
         --socket $SOFT/virtnetd.sock",
    ),
    (
        LOCAL,
        "virtnetctl local --controller unix:$SOFT/virtnetd.sock --switch ovsdb:unix:$SOFT/db.sock --netns $SOFT/netns \
         --tap-representors --state-dir $SOFT/state",
    ),
];
/// What a person does then.
const SESSION: [&str; 11] = [
    "kubectl apply -f manifests/soft",
    "kubectl wait --for=condition=Ready virtnetdevices --all --timeout=90s",
    "kubectl get virtnetdevices",
    "guest-a 'ip address add 10.1.0.1/24 dev eth0; ip link set eth0 up'",
    "guest-b 'ip address add 10.1.0.2/24 dev eth0; ip link set eth0 up'",
    "guest-a ping -c 3 10.1.0.2",
    "guest-b iperf3 --server --daemon --one-off",
    "guest-a iperf3 --client 10.1.0.2 --time 3",
    "ovs-vsctl list-ports ovsbr1",
    "virtnet query -p 0 --brief",
    "virtnet stats -p 0",
];
/// What is waited for after the server was begun, unseen: `--daemon` ends before it listens (port 5201), and whoever types is slower.
const LISTENS: (&str, &str) = (
    "guest-b iperf3 --server",
    "guest-b 'until grep -qs :1451 /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done'",
);
const TOUR: &str = "and for instance:
  guest-a                                  a shell in guest-a, which Ctrl-] leaves
  guest-b ethtool -i eth0                  a command in guest-b
  virtnetctl tree web-a
  kubectl patch virtnetdevice web-a --type=merge -p '{\"spec\":{\"port\":{\"tag\":100}}}'    # not a ping reaches guest-b then
  kubectl delete -f manifests/soft
  virtnet list
  ovs-vsctl show
  nsenter --net=$SOFT/netns ip -s link show en3f0pf0sf2000
  tail -f $SOFT/virtnetd.log

Ctrl-C ends it, and leaves nothing behind.";

fn main() -> ExitCode {
    let Arguments { once, command } = Arguments::parse();
    let result = match command {
        None => tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .context("starting the runtime")
            .and_then(|runtime| runtime.block_on(run(once)))
            .map(|()| ExitCode::SUCCESS),
        Some(InGuest::Guest { line, command, .. }) if command.is_empty() => {
            line::attach(&line).map(|()| ExitCode::SUCCESS)
        }
        Some(InGuest::Guest { door, command, .. }) => in_guest(&door, &command.join(" ")),
    };
    result.unwrap_or_else(|error| {
        let _ = writeln!(std::io::stderr().lock(), "soft: {error:#}");
        ExitCode::FAILURE
    })
}

async fn run(once: bool) -> anyhow::Result<()> {
    let listen = |kind| signal(kind).context("listening for signals");
    let (mut terminated, mut interrupted) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    // The terminal was closed.
    let mut hung_up = listen(SignalKind::hangup())?;
    let stay = !once && std::io::stdout().is_terminal();
    // What runs ends with the value of which this drops the one that has it.
    tokio::select! {
        result = play(stay) => result,
        _ = terminated.recv() => Ok(()),
        _ = interrupted.recv() => Ok(()),
        _ = hung_up.recv() => Ok(()),
    }
}

async fn play(stay: bool) -> anyhow::Result<()> {
    say("Starting Open vSwitch, in a network namespace of its own.");
    let mut soft = Soft::start()?;
    say("Booting guest-a and guest-b. They are emulated, which takes some seconds.");
    let [a, b] = GUESTS.map(|name| {
        let soft = &soft;
        async move {
            let door = soft.boot(name).await?;
            say(&format!("{name} has booted."));
            anyhow::Ok(door)
        }
    });
    let (a, b) = tokio::try_join!(a, b)?;
    let mut doors = [a, b];
    soft.configure(&doors)?;
    let [a, b] = &mut doors;
    tokio::select! {
        result = show(&mut soft, stay) => result,
        ended = a.serve() => match ended? {},
        ended = b.serve() => match ended? {},
    }
}

async fn show(soft: &mut Soft, stay: bool) -> anyhow::Result<()> {
    let variables = soft.variables();
    let export = format!("export {}", soft.assignments());
    say(&format!("$ {export}"));
    for (name, command) in PROGRAMS {
        say(&format!("$ {command} &"));
        soft.begin(name, command)?;
    }
    // Where its API is has just been said; all else comes when it is asked for.
    say(soft.until_said(LOCAL, "export KUBECONFIG=").await?.trim_end());
    for command in SESSION {
        say(&format!("$ {command}"));
        do_it(command, &variables).await?;
        if command.starts_with(LISTENS.0) {
            do_it(LISTENS.1, &variables).await?;
        }
    }
    if !stay {
        return Ok(());
    }
    say(&format!("\nIn another terminal, here:\n{export}\n{TOUR}"));
    loop {
        sleep(LOOK).await;
        soft.check()?;
    }
}

/// Runs a command to its end.
async fn do_it(command: &str, variables: &[(&str, String)]) -> anyhow::Result<()> {
    let status = Shell::start(command, variables)?.0.wait().await.context("waiting for bash")?;
    ensure!(status.success(), "{command}: {status}");
    Ok(())
}

/// A command of the session. Dropped, it is killed with all that it started.
struct Shell(Child);

impl Shell {
    fn start(command: &str, variables: &[(&str, String)]) -> anyhow::Result<Self> {
        let mut shell = Command::new("bash");
        shell.args(["-c", command]).current_dir(ROOT).envs(variables.iter().cloned());
        // Ctrl-C on a terminal is for this program, which ends it.
        shell.stdin(Stdio::null()).process_group(0);
        shell.spawn().map(Self).context("running bash")
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // None: it has ended, and been waited for.
        if let Some(id) = self.0.id() {
            let group = format!("-{id}");
            let _ = std::process::Command::new("kill").args(["-KILL", "--", &group]).status();
        }
    }
}

/// Runs a command in a guest, and ends as it did.
fn in_guest(door: &Path, command: &str) -> anyhow::Result<ExitCode> {
    let Done { code, output } = ask(door, command)?;
    std::io::stdout().lock().write_all(output.as_bytes()).context("showing what the guest says")?;
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// A line on standard output. A reader that has gone is no error: there is nobody left to tell.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
