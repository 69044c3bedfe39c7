//! Starts every child from one thread that lives as long as the launcher.
//!
//! A child asks the kernel to be killed when its parent dies, and for the kernel the parent is the *thread* that
//! forked it: a child started from a pool thread dies when the pool lets that thread go.

use std::io;
use std::process::{Child, Command};
use std::sync::mpsc;

use tokio::sync::oneshot;

use crate::error::LaunchError;

struct Order {
    command: Command,
    answer: oneshot::Sender<io::Result<Child>>,
}

/// The way to that thread. When the last copy is dropped the thread ends, and with it any child still running.
#[derive(Clone)]
pub(crate) struct Spawner {
    orders: mpsc::Sender<Order>,
}

impl Spawner {
    /// Starts the thread.
    ///
    /// # Errors
    /// No thread is to be had.
    pub(crate) fn start() -> Result<Self, LaunchError> {
        let (orders, inbox) = mpsc::channel::<Order>();
        let thread = std::thread::Builder::new().name("spawner".to_owned());
        thread.spawn(move || serve(&inbox)).map_err(LaunchError::system("cannot start a thread"))?;
        Ok(Self { orders })
    }

    /// Starts `command` from that thread.
    pub(crate) async fn spawn(&self, command: Command) -> io::Result<Child> {
        let (answer, child) = oneshot::channel();
        self.orders.send(Order { command, answer }).map_err(|_| gone())?;
        child.await.map_err(|_| gone())?
    }
}

fn serve(inbox: &mpsc::Receiver<Order>) {
    for mut order in inbox {
        // Nobody waits when the launch was called off; the child then loses its stdin at once and ends by itself.
        let _ = order.answer.send(order.command.spawn());
    }
}

fn gone() -> io::Error {
    io::Error::other("the thread that starts programs is gone")
}
