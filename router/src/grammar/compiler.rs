//! Where grammars are checked: a bounded number of threads beside the async runtime, a bounded queue in front of them,
//! a time limit, and the verdicts on grammars that were seen before.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use lru::LruCache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use super::check::{Checker, Stop};
use super::error::GrammarError;
use super::limits::GrammarLimits;
use super::source::{Grammar, GrammarSource};
use super::vocabulary::Vocabulary;

/// The grammar library calls itself for each level of a grammar, with some ten kilobytes a call. Only what is used of it
/// is ever in memory.
const STACK_BYTES: usize = 128 << 20;

type Verdict = Result<(), GrammarError>;

/// Checks grammars for one model.
pub struct GrammarCompiler {
    limits: GrammarLimits,
    checker: Shared<BoxFuture<'static, Result<Arc<Checker>, GrammarError>>>,
    places: Arc<Semaphore>,
    threads: Arc<Semaphore>,
    verdicts: Mutex<LruCache<[u8; 32], Verdict>>,
}

/// Stops a check that nobody waits for any more.
struct StopOnDrop(Arc<Stop>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.ask();
    }
}

impl GrammarCompiler {
    /// Starts to build what every grammar needs, on a thread of its own; must be called within a runtime.
    pub fn new(vocabulary: Vocabulary, limits: GrammarLimits) -> Self {
        let kept = NonZeroUsize::new(limits.max_verdicts).unwrap_or(NonZeroUsize::MIN);
        Self {
            checker: build(vocabulary).boxed().shared(),
            places: Arc::new(Semaphore::new(limits.threads + limits.max_waiting)),
            threads: Arc::new(Semaphore::new(limits.threads.max(1))),
            verdicts: Mutex::new(LruCache::new(kept)),
            limits,
        }
    }

    /// The limits it works within.
    pub fn limits(&self) -> &GrammarLimits {
        &self.limits
    }

    /// The grammar in the form the shard reads, once it is known that it can be followed.
    ///
    /// # Errors
    /// What is wrong with the grammar, or with there being so many.
    pub async fn compile(&self, source: GrammarSource) -> Result<Grammar, GrammarError> {
        let grammar = source.write(&self.limits)?;
        let key = grammar.key();
        let seen = self.verdicts().get(&key).cloned();
        match seen {
            Some(verdict) => verdict?,
            None => self.judge(&grammar, key).await?,
        }
        Ok(grammar)
    }

    async fn judge(&self, grammar: &Grammar, key: [u8; 32]) -> Verdict {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| GrammarError::Busy)?;
        let checker = self.checker.clone().await?;
        let turn = timeout(self.limits.queue_limit, Arc::clone(&self.threads).acquire_owned());
        let thread = turn.await.map_err(|_| GrammarError::Busy)?.map_err(|_| GrammarError::ShuttingDown)?;
        let limit = self.limits.time_limit;
        let verdict = timeout(limit, run(checker, grammar.clone(), (place, thread))).await;
        let verdict = verdict.map_err(|_| GrammarError::TooSlow { limit })?;
        if matches!(verdict, Ok(()) | Err(GrammarError::Invalid(_))) {
            self.verdicts().put(key, verdict.clone());
        }
        verdict
    }

    pub(super) fn verdicts(&self) -> MutexGuard<'_, LruCache<[u8; 32], Verdict>> {
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Begins now, whoever waits for it.
fn build(vocabulary: Vocabulary) -> impl Future<Output = Result<Arc<Checker>, GrammarError>> {
    let task = tokio::task::spawn_blocking(move || Checker::new(vocabulary).map(Arc::new));
    async { task.await.map_err(|_| GrammarError::ShuttingDown)? }
}

/// Checks on a thread of its own, which is told to stop when this future is dropped.
async fn run(
    checker: Arc<Checker>,
    grammar: Grammar,
    permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
) -> Verdict {
    let stop = StopOnDrop(Arc::default());
    let told = Arc::clone(&stop.0);
    let (tell, verdict) = oneshot::channel();
    let work = move || {
        // Held by the work itself: a client that leaves must not free a thread that still works.
        let _held = permits;
        let _ = tell.send(checker.check(&grammar, &told));
    };
    let thread = std::thread::Builder::new().name("grammar".to_owned()).stack_size(STACK_BYTES);
    thread.spawn(work).map_err(|_| GrammarError::Busy)?;
    verdict.await.unwrap_or_else(|_| Err(GrammarError::Invalid("it cannot be compiled".to_owned())))
}
