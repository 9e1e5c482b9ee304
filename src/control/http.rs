//! A small HTTP listener: `/metrics`, `/healthz`, `/readyz`. It has a thread of its own, so that a slow scraper holds up nobody.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::sync::oneshot;

use super::metrics::{self, Snapshot};

/// Who can be asked about a run.
pub trait Source: Send + Sync + 'static {
    /// The run now.
    fn snapshot(&self) -> Snapshot;

    /// True while it intercepts; false once it drains.
    fn is_ready(&self) -> bool;
}

/// A listener that has its address and answers nobody yet.
#[derive(Debug)]
pub struct Listener(TcpListener);

/// A listener that answers. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Takes the address.
    ///
    /// # Errors
    /// What the system says, as `EADDRINUSE`.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self(listener))
    }

    /// The address, with the port that the system chose if 0 was asked for.
    ///
    /// # Errors
    /// What the system says.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers from now on.
    ///
    /// # Errors
    /// If the system gives no thread or no descriptor.
    pub fn serve(self, source: Arc<dyn Source>) -> io::Result<Server> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _guard = runtime.enter();
            tokio::net::TcpListener::from_std(self.0)?
        };
        let (end, ended) = oneshot::channel::<()>();
        let work = move || {
            runtime.block_on(async {
                let serve = axum::serve(listener, routes(source)).into_future();
                // Whoever still reads when the run ends is cut off: the run does not wait for scrapers.
                tokio::select! { _ = serve => (), _ = ended => () }
            });
        };
        let thread = std::thread::Builder::new().name("control".to_owned()).spawn(work)?;
        Ok(Server { end: Some(end), thread: Some(thread) })
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

fn routes(source: Arc<dyn Source>) -> Router {
    Router::new()
        .route("/metrics", get(tell_metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(tell_ready))
        .with_state(source)
}

async fn tell_metrics(State(source): State<Arc<dyn Source>>, headers: HeaderMap) -> impl IntoResponse {
    let text = metrics::open_metrics(source.snapshot());
    let accepts = |wanted: &str| {
        headers.get_all(ACCEPT).iter().any(|value| value.to_str().is_ok_and(|value| value.contains(wanted)))
    };
    if accepts("application/openmetrics-text") {
        ([(CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")], text)
    } else {
        ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics::prometheus(&text))
    }
}

async fn tell_ready(State(source): State<Arc<dyn Source>>) -> (StatusCode, &'static str) {
    if source.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::control::metrics::Packets;
    use crate::measure::Measure;

    struct Fixed(AtomicBool);

    impl Source for Fixed {
        fn snapshot(&self) -> Snapshot {
            let measure = Measure::default();
            Snapshot {
                counters: measure.counters(),
                latencies: measure.latencies().clone(),
                rules: Vec::new(),
                limits: Vec::new(),
                discarded: Vec::new(),
                waiting_bytes: 0,
                packets: Packets::default(),
            }
        }

        fn is_ready(&self) -> bool {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// Status line, head and body.
    fn ask(address: SocketAddr, path: &str, head: &str) -> (String, String, String) {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{head}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), head.to_owned(), body.to_owned())
    }

    #[test]
    fn metrics_health_and_readiness_are_served_until_the_end() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address().unwrap();
        let source = Arc::new(Fixed(AtomicBool::new(true)));
        let asked: Arc<dyn Source> = Arc::clone(&source) as _;
        let server = listener.serve(asked).unwrap();
        let (status, head, body) = ask(address, "/metrics", "");
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        assert!(body.contains("halfopen_flows_opened_total 0"), "{body}");
        let (_, head, body) =
            ask(address, "/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n");
        assert!(head.contains("application/openmetrics-text") && body.ends_with("# EOF\n"), "{head}");
        let statuses = ["/healthz", "/readyz", "/nothing"].map(|path| ask(address, path, "").0);
        assert_eq!(statuses, ["HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found"]);
        source.0.store(false, Ordering::Relaxed);
        let statuses = ["/healthz", "/readyz"].map(|path| ask(address, path, "").0);
        assert_eq!(statuses, ["HTTP/1.1 200 OK", "HTTP/1.1 503 Service Unavailable"]);
        // Who asks and then says nothing holds nobody up.
        let silent = TcpStream::connect(address).unwrap();
        drop(server);
        assert!(TcpStream::connect(address).is_err());
        drop(silent);
    }

    /// Each asks for more than the sockets can hold, and reads none of it.
    #[test]
    fn scrapers_that_do_not_read_hold_up_no_other_and_not_the_end() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.address().unwrap();
        let server = listener.serve(Arc::new(Fixed(AtomicBool::new(true)))).unwrap();
        let slow = [(); 8].map(|()| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.set_nonblocking(true).unwrap();
            // Until no more is taken: the server has stopped to read, because nobody reads what it writes.
            while stream.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").is_ok() {}
            stream
        });
        assert_eq!(ask(address, "/metrics", "").0, "HTTP/1.1 200 OK");
        drop(server);
        assert!(TcpStream::connect(address).is_err());
        drop(slow);
    }

    #[test]
    fn an_address_in_use_is_told() {
        let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let error = Listener::bind(listener.address().unwrap()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
