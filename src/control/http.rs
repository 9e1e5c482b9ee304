//! What Prometheus and others are told over HTTP: `/metrics`, `/healthz`, `/readyz`.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;

use super::metrics::{self, Snapshot};

/// Who can be asked about a run.
pub trait Source: Send + Sync + 'static {
    /// The run now.
    fn snapshot(&self) -> Snapshot;

    /// True while it intercepts; false once it drains.
    fn is_ready(&self) -> bool;

    /// Counts a limit that was hit, by its config key.
    fn limit_hit(&self, limit: &'static str);
}

/// The answers of the endpoint for metrics.
pub fn routes(source: Arc<dyn Source>) -> Router {
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
    use std::io::{self, Read as _, Write as _};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::control::metrics::Packets;
    use crate::control::{Endpoint, Server};
    use crate::measure::Measure;

    #[derive(Default)]
    struct Fixed {
        draining: AtomicBool,
        limits: Mutex<Vec<&'static str>>,
    }

    impl Source for Fixed {
        fn snapshot(&self) -> Snapshot {
            Snapshot { measure: Measure::default(), waiting_bytes: 0, packets: Packets::default() }
        }

        fn is_ready(&self) -> bool {
            !self.draining.load(Ordering::Relaxed)
        }

        fn limit_hit(&self, limit: &'static str) {
            self.limits.lock().unwrap().push(limit);
        }
    }

    /// An endpoint of its own for `most` connections at once.
    fn serve(source: &Arc<Fixed>, most: usize) -> (SocketAddr, Server) {
        let endpoint = Endpoint::for_metrics("127.0.0.1:0".parse().unwrap(), most).unwrap();
        let address = endpoint.address().unwrap();
        let source: Arc<dyn Source> = Arc::clone(source) as _;
        (address, Server::start(vec![(endpoint, routes(Arc::clone(&source)))], &source).unwrap())
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
        let source = Arc::new(Fixed::default());
        let (address, server) = serve(&source, 8);
        let (status, head, body) = ask(address, "/metrics", "");
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(head.contains("text/plain; version=0.0.4"), "{head}");
        assert!(body.contains("halfopen_flows_opened_total 0"), "{body}");
        let (_, head, body) =
            ask(address, "/metrics", "Accept: application/openmetrics-text;version=1.0.0\r\n");
        assert!(head.contains("application/openmetrics-text") && body.ends_with("# EOF\n"), "{head}");
        let statuses = ["/healthz", "/readyz", "/nothing"].map(|path| ask(address, path, "").0);
        assert_eq!(statuses, ["HTTP/1.1 200 OK", "HTTP/1.1 200 OK", "HTTP/1.1 404 Not Found"]);
        source.draining.store(true, Ordering::Relaxed);
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
        let (address, server) = serve(&Arc::new(Fixed::default()), 16);
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
    fn one_connection_too_many_is_closed_and_counted_and_room_comes_back() {
        let source = Arc::new(Fixed::default());
        let (address, _server) = serve(&source, 2);
        // Connections are accepted in the order in which they came.
        let halves = [(); 2].map(|()| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n").unwrap();
            stream
        });
        let mut third = TcpStream::connect(address).unwrap();
        let mut said = Vec::new();
        // Nothing was sent, so it is closed in order.
        assert_eq!(third.read_to_end(&mut said).unwrap(), 0);
        assert_eq!(*source.limits.lock().unwrap(), ["limits.metrics_connections"]);
        for mut stream in halves {
            stream.write_all(b"\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        }
        assert_eq!(ask(address, "/healthz", "").0, "HTTP/1.1 200 OK");
    }

    #[test]
    fn an_address_in_use_is_told() {
        let endpoint = Endpoint::for_metrics("127.0.0.1:0".parse().unwrap(), 1).unwrap();
        let error = Endpoint::for_metrics(endpoint.address().unwrap(), 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
