//! Commands on their way to the step loop. Its size is bounded by the permits: a request posts one submission and,
//! when its stream is dropped, one abort.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use text_generation_scheduler::SequenceId;
use tokio::sync::{Notify, mpsc};

use super::progress::Progress;
use super::types::{GenerateRequest, StreamEvent};

/// A request on its way into the scheduler.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) sequence: SequenceId,
    pub(super) request: GenerateRequest,
    pub(super) max_new_tokens: u32,
    pub(super) sender: mpsc::Sender<StreamEvent>,
    pub(super) progress: Arc<Progress>,
    pub(super) submitted: Instant,
}

#[derive(Debug)]
pub(super) enum Command {
    Submit(Box<Submission>),
    Abort(SequenceId),
    /// End every stream with an error and leave.
    Stop,
}

#[derive(Debug, Default)]
pub(super) struct Mailbox {
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    commands: Vec<Command>,
    closed: bool,
}

impl Mailbox {
    /// Posts a command. After [`Mailbox::close`] it is dropped, which ends a submission's stream.
    pub(super) fn post(&self, command: Command) {
        let mut queue = self.lock();
        if !queue.closed {
            queue.commands.push(command);
            self.arrived.notify_one();
        }
    }

    pub(super) fn take(&self) -> Vec<Command> {
        std::mem::take(&mut self.lock().commands)
    }

    /// The step loop is gone: nobody will read what is posted.
    pub(super) fn close(&self) {
        *self.lock() = Queue { commands: Vec::new(), closed: true };
    }

    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
