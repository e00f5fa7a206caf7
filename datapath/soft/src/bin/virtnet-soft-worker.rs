//! `virtnet-soft-worker --threads N`: moves the packets of functions, as the supervisor at its standard input tells it.

use std::os::fd::AsFd;
use std::process::ExitCode;

fn main() -> ExitCode {
    tracing_to_stderr();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let threads = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--threads", threads] => threads.parse().ok().filter(|threads| (1..=64).contains(threads)),
        _ => None,
    };
    let Some(threads) = threads else {
        tracing::error!("virtnet-soft-worker --threads N, 1 to 64; the socket is its standard input");
        return ExitCode::from(2);
    };
    let result = std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .and_then(|socket| virtnet_soft::worker::run(socket, threads));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "the worker ends");
            ExitCode::FAILURE
        }
    }
}

fn tracing_to_stderr() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
}
