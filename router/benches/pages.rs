//! Pages a second from a JPEG file's bytes to hashed, resized pixels, on the calling thread.
//!
//!     pages FILE WIDTH HEIGHT
//!
//! Prints one JSON line. `benchmarks/run.py` puts the Hugging Face processor's figure beside it.

use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use text_generation_router::families::{Filter, ImageLayout, ImageRejected, ImageSize, View, VlmFamily};
use text_generation_router::images::{ImageLimits, ImageModel, prepare_bytes};
use text_generation_scheduler::TokenId;

/// As in the programs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 60;

/// A family that resizes every image to one size with the filter most processors use.
struct FixedSize(ImageSize);

impl VlmFamily for FixedSize {
    fn layout(&self, _: ImageSize) -> Result<ImageLayout, ImageRejected> {
        Ok(ImageLayout::plain(View::resized(self.0, Filter::Bicubic), 1))
    }

    fn image_token(&self) -> TokenId {
        0
    }

    fn anchor(&self) -> TokenId {
        0
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().filter(|argument| argument != "--bench").skip(1).collect();
    let [file, width, height] = arguments.as_slice() else {
        return Err("usage: pages FILE WIDTH HEIGHT".into());
    };
    let family = Arc::new(FixedSize(ImageSize::new(width.parse()?, height.parse()?)));
    let (model, limits) = (ImageModel { family, identity: [0; 32] }, ImageLimits::default());
    let bytes = std::fs::read(file)?;
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let stages = std::hint::black_box(prepare_bytes(&bytes, &model, &limits)?).timings;
        times.push((start.elapsed(), stages));
    }
    times.sort_by_key(|(whole, _)| *whole);
    // The best round, as for the processor it is compared with: both share the machine with others.
    let (whole, stages) = times[0];
    let rate = 1.0 / whole.as_secs_f64();
    let (decode, resize) = (1000.0 * stages.decode.as_secs_f64(), 1000.0 * stages.resize.as_secs_f64());
    writeln!(
        std::io::stdout(),
        "{{\"pages_per_second\": {rate:.2}, \"decode_ms\": {decode:.2}, \"resize_and_hash_ms\": {resize:.2}}}"
    )?;
    Ok(())
}
