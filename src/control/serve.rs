//! Endpoints: listeners that speak HTTP. One thread answers at all of them, so that whoever asks slowly holds up nobody else's
//! work. A connection is one request, lasts half a minute at most, and there are only so many at a time.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use super::http::Source;
use super::socket::may_ask;

/// How long a connection lasts, from its beginning until the answer is read.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long to wait after the system has refused to accept: it has no descriptors left, mostly.
const BREATH: Duration = Duration::from_millis(100);

/// A listener that has its address and answers nobody yet.
#[derive(Debug)]
pub struct Endpoint {
    listener: Listener,
    /// Connections at once. One more is closed at once.
    most: usize,
    /// The config key of that.
    limit: &'static str,
}

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    /// Only for root and this user.
    Unix(UnixListener, u32),
}

/// The same as the runtime knows it.
enum Ear {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener, u32),
}

/// A connection of any kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

impl Listener {
    fn listen(self) -> io::Result<Ear> {
        Ok(match self {
            Self::Tcp(listener) => Ear::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Self::Unix(listener, owner) => Ear::Unix(tokio::net::UnixListener::from_std(listener)?, owner),
        })
    }
}

impl Ear {
    /// The next connection; `None` for one from somebody who may not ask.
    async fn accept(&self) -> io::Result<Option<Box<dyn Stream>>> {
        match self {
            Self::Tcp(listener) => Ok(Some(Box::new(listener.accept().await?.0))),
            Self::Unix(listener, owner) => {
                let (stream, _) = listener.accept().await?;
                Ok(may_ask(&stream, *owner).then(|| Box::new(stream) as _))
            }
        }
    }
}

/// Endpoints that are open. Dropping it closes them.
#[derive(Debug)]
pub struct Server {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Endpoint {
    /// Takes an address for metrics, and `most` connections at once (`limits.metrics_connections`).
    ///
    /// # Errors
    /// What the system says, as `EADDRINUSE`.
    pub fn for_metrics(address: SocketAddr, most: usize) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: Listener::Tcp(listener), most, limit: "limits.metrics_connections" })
    }

    /// Takes the control socket of this process, for root and for `owner`, and `most` connections at once
    /// (`limits.control_connections`).
    ///
    /// # Errors
    /// What the system says, as `EADDRINUSE`.
    pub fn for_control(owner: u32, most: usize) -> io::Result<Self> {
        let listener = super::socket::bind()?;
        Ok(Self { listener: Listener::Unix(listener, owner), most, limit: "limits.control_connections" })
    }

    /// The address of a TCP endpoint, with the port that the system chose if 0 was asked for.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match &self.listener {
            Listener::Tcp(listener) => listener.local_addr().ok(),
            Listener::Unix(..) => None,
        }
    }
}

impl Server {
    /// Answers at these endpoints from now on; each has its own answers.
    ///
    /// # Errors
    /// If the system gives no thread or no descriptor.
    pub fn start(endpoints: Vec<(Endpoint, Router)>, source: &Arc<dyn Source>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        for (Endpoint { listener, most, limit }, router) in endpoints {
            let _guard = runtime.enter();
            let ear = listener.listen()?;
            let open =
                Open { room: Arc::new(Semaphore::new(most)), limit, router, source: Arc::clone(source) };
            runtime.spawn(open.keep(ear));
        }
        let (end, ended) = oneshot::channel::<()>();
        // Whoever still reads when the run ends is cut off: the run waits for nobody. The endpoints close with the runtime.
        let work = move || drop(runtime.block_on(ended));
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(work)?;
        Ok(Self { end: Some(end), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An endpoint at work.
struct Open {
    room: Arc<Semaphore>,
    limit: &'static str,
    router: Router,
    source: Arc<dyn Source>,
}

impl Open {
    /// Takes connections for ever.
    async fn keep(self, ear: Ear) {
        loop {
            let stream = match ear.accept().await {
                Ok(Some(stream)) => stream,
                Ok(None) => continue,
                Err(_) => {
                    sleep(BREATH).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
                self.source.limit_hit(self.limit);
                continue;
            };
            let service = TowerToHyperService::new(self.router.clone());
            tokio::spawn(async move {
                let connection =
                    http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(stream), service);
                // Who breaks off, or is too slow, has had the chance.
                let _ = timeout(PATIENCE, connection).await;
                drop(place);
            });
        }
    }
}
