//! `text-generation-launcher`: flags in, exit code out. Everything else is in the library beside it.

use std::process::ExitCode;

use text_generation_launcher::args::LauncherArgs;
use text_generation_launcher::launch::launch;
use text_generation_launcher::program::{block_on, start, start_logging};
use text_generation_launcher::report::report;
use text_generation_launcher::serving::serve;
use text_generation_launcher::stop::Stop;
use text_generation_router::config::check;

fn main() -> ExitCode {
    start(std::env::args_os(), |args| run(&args))
}

fn run(args: &LauncherArgs) -> anyhow::Result<()> {
    if args.env {
        eprint!("{}", report(args));
        return Ok(());
    }
    check(&args.router)?;
    let board = start_logging(&args.router.process, &args.not_served())?;
    block_on(async {
        let stop = Stop::on_signals()?;
        let (router, model_id) = (args.router.clone(), args.model.model_id.clone());
        Ok(launch(args, &board, &stop, |start| serve(router, model_id, start)).await?)
    })
}
