//! The router inside the launcher: where the two meet.

use text_generation_router::args::RouterArgs;
use text_generation_router::{Control, RouterConfig};

use crate::supervise::RouterStart;

/// Runs the router until it is told to shut down. `model_id` is the name users know the model by; none leaves it to
/// the prepared file.
///
/// # Errors
/// The router could not start, or failed.
pub async fn serve(args: RouterArgs, model_id: Option<String>, start: RouterStart) -> anyhow::Result<()> {
    let RouterStart { prepared, shards, shutdown, stop_now, ready, restarts } = start;
    let control = Control {
        shutdown: shutdown.cancelled_owned(),
        stop_now: stop_now.cancelled_owned(),
        ready: |said| {
            // Nobody listens when the launch was called off meanwhile.
            let _ = ready.send(said);
        },
        restarts,
    };
    text_generation_router::run(RouterConfig { args, prepared, shards, model_id }, control).await
}
