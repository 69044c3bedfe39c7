//! What stands for an image, asked of the model's own processor in the first rank's shard.

use std::time::Duration;

use text_generation_proto as pb;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};

use super::ShardError;
use crate::families::{AskProcessor, ImageRejected, ImageSize, Piece};

/// A processor needs a second for the largest pictures; behind others it may have to wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The processor behind a shard's socket. Connects when it is first asked, and again after a restart.
#[derive(Clone, Debug)]
pub struct ShardProcessor {
    channel: Channel,
    runtime: Handle,
}

impl ShardProcessor {
    /// Of the shard at this address. Must be made inside a runtime, which does the talking.
    ///
    /// Errors: `Unreachable` when it is no address.
    pub fn new(address: &str) -> Result<Self, ShardError> {
        let endpoint = Endpoint::from_shared(address.to_owned());
        let endpoint = endpoint.map_err(|error| ShardError::Unreachable { rank: 0, reason: error.to_string() })?;
        Ok(Self { channel: endpoint.connect_lazy(), runtime: Handle::current() })
    }

    async fn ask(&self, image: ImageSize) -> Result<pb::LayoutImageResult, tonic::Status> {
        let request = pb::LayoutImageRequest { width: image.width, height: image.height };
        let mut client = pb::shard_client::ShardClient::new(self.channel.clone());
        Ok(client.layout_image(request).await?.into_inner())
    }
}

impl AskProcessor for ShardProcessor {
    /// Must not be called on a thread that runs async tasks.
    fn pieces(&self, image: ImageSize) -> Result<Vec<Piece>, ImageRejected> {
        let ImageSize { width, height } = image;
        match self.runtime.block_on(async { timeout(ANSWER_TIMEOUT, self.ask(image)).await }) {
            Ok(Ok(answer)) if answer.refused => Err(ImageRejected::Size { width, height }),
            Ok(Ok(answer)) => Ok(answer.pieces.into_iter().filter_map(piece).collect()),
            Ok(Err(status)) => {
                tracing::warn!(reason = status.message(), "the shard does not say what stands for an image");
                Err(ImageRejected::Unanswered)
            }
            Err(_) => Err(ImageRejected::Unanswered),
        }
    }
}

fn piece(piece: pb::ImagePiece) -> Option<Piece> {
    match piece.piece? {
        pb::image_piece::Piece::NumTokens(count) => Some(Piece::Tokens(count)),
        pb::image_piece::Piece::Text(text) => Some(Piece::Text(text.into())),
    }
}
