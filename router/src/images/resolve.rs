//! Name lookup with judgement: the HTTP client connects to the addresses this returns and to no others, so what was
//! judged is what is connected to, however a name answers the next time.

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::Semaphore;

use super::policy::FetchPolicy;

/// Lookups at the same time. The system's resolver blocks a thread and cannot be cancelled.
const MAX_LOOKUPS: usize = 32;

/// Turns a host name into addresses.
pub(super) trait Lookup: Send + Sync {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The system's resolver.
pub(super) struct SystemLookup(Arc<Semaphore>);

impl Default for SystemLookup {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_LOOKUPS)))
    }
}

impl Lookup for SystemLookup {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let places = self.0.clone();
        Box::pin(async move {
            let place = places.acquire_owned().await.map_err(io::Error::other)?;
            let blocking = move || {
                // Held by the thread, not by the caller, who may have given up long before the resolver does.
                let _place = place;
                Ok((host.as_str(), 0).to_socket_addrs()?.map(|address| address.ip()).collect())
            };
            tokio::task::spawn_blocking(blocking).await.map_err(io::Error::other)?
        })
    }
}

/// The resolver the HTTP client is given.
pub(super) struct JudgingResolver {
    pub(super) lookup: Arc<dyn Lookup>,
    pub(super) policy: Arc<FetchPolicy>,
}

impl Resolve for JudgingResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (lookup, policy) = (self.lookup.clone(), self.policy.clone());
        let host = name.as_str().to_owned();
        Box::pin(async move {
            let found = lookup.lookup(host.clone()).await?;
            let permitted: Vec<SocketAddr> = found
                .into_iter()
                .filter(|address| policy.permits(&host, *address))
                .map(|address| (address, 0).into())
                .collect();
            if permitted.is_empty() {
                return Err(io::Error::from(io::ErrorKind::PermissionDenied).into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}
