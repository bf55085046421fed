//! Real containers, as root, made of the machine's static busybox.
//!
//! The binary is its own shim, which is why it has its own `main`: entered with `shim` as its
//! first argument it must not start a thread. Arguments that are no options select tests by name.

mod containers;
mod failures;
mod images;
mod registry;
mod rig;
mod streams;

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures::FutureExt;

/// No test takes longer unless it hangs.
const TEST_LIMIT: Duration = Duration::from_secs(90);

type Body = fn() -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Names functions `async fn()` as tests.
#[macro_export]
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub const ALL: &[(&str, $crate::Body)] = &[$((
            concat!(module_path!(), "::", stringify!($name)),
            || Box::pin($name()),
        )),*];
    };
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1).peekable();
    if args.peek().is_some_and(|a| a == runtime::shim::ARGUMENT) {
        return runtime::shim::main(args.skip(1));
    }
    if args.peek().is_some_and(|a| a == failures::OPENER) {
        return failures::opener(args.skip(1).filter_map(|a| a.into_string().ok()));
    }
    let args: Vec<String> = args.filter_map(|a| a.into_string().ok()).collect();
    let all: Vec<_> =
        [containers::ALL, streams::ALL, failures::ALL, images::ALL, registry::ALL].concat();
    let wanted: Vec<&String> = args.iter().filter(|a| !a.starts_with('-')).collect();
    let chosen = |name: &str| wanted.is_empty() || wanted.iter().any(|w| name.contains(w.as_str()));
    if args.iter().any(|a| a == "--list") {
        for (name, _) in &all {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    if !rig::possible() {
        println!("skipped: needs root and /bin/busybox (Debian package busybox-static)");
        return ExitCode::SUCCESS;
    }
    let executor = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("an executor");
    let mut failed = Vec::new();
    for (name, body) in all.into_iter().filter(|(name, _)| chosen(name)) {
        let began = Instant::now();
        let outcome = executor.block_on(async {
            tokio::time::timeout(TEST_LIMIT, AssertUnwindSafe(body()).catch_unwind()).await
        });
        let good = matches!(outcome, Ok(Ok(())));
        let verdict = if good { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} ({:.2} s)", began.elapsed().as_secs_f64());
        if !good {
            failed.push(name);
        }
    }
    // A test that was cut off may still hold tasks; they must not keep the process.
    executor.shutdown_timeout(Duration::from_secs(1));
    if failed.is_empty() {
        ExitCode::SUCCESS
    } else {
        println!("failed: {}", failed.join(", "));
        ExitCode::FAILURE
    }
}
