//! Asks the control socket of an instance. Every wait and every answer has a bound.

use std::fmt;
use std::io::{self, ErrorKind};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, HeaderMap, SERVER};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::api::{self, Problem};
use super::socket::Name;

/// How long an instance has for its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Longest answer that is read, in bytes: [`api::MOST_FLOWS`] flows, with many rules each.
const LONGEST: usize = 64 << 20;

/// Why there is no answer.
#[derive(Debug)]
pub enum Error {
    /// Nobody is there: it has ended, or never was.
    NotThere,
    /// It belongs to this user, who is somebody else.
    Foreign(u32),
    /// It has closed the connection without an answer.
    Closed,
    /// It takes longer than [`Error::PATIENCE`] s.
    TooSlow,
    /// It is this version, and its answer is not understood.
    OtherVersion(String),
    /// It says no: the status and the reason.
    Refused(StatusCode, Problem),
    /// The system says no.
    System(io::Error),
}

impl Error {
    /// How long an answer may take, in seconds.
    pub const PATIENCE: u64 = PATIENCE.as_secs();
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotThere => f.write_str("is not there"),
            Self::Foreign(uid) => write!(f, "belongs to another user (uid {uid})"),
            Self::Closed => f.write_str("has closed the connection without an answer"),
            Self::TooSlow => write!(f, "has not answered within {} s", Self::PATIENCE),
            Self::OtherVersion(version) => {
                write!(f, "is {version}, whose answer {} does not understand", api::SERVER)
            }
            Self::Refused(_, problem) => f.write_str(&problem.error),
            Self::System(error) => write!(f, "cannot be asked: {error}"),
        }
    }
}

/// What an instance has answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// As it came: JSON.
    pub body: Bytes,
    version: String,
}

impl Answer {
    /// What it means.
    ///
    /// # Errors
    /// [`Error::OtherVersion`] if it is nothing that is understood.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|_| Error::OtherVersion(self.version.clone()))
    }
}

/// An instance.
#[derive(Clone, Copy, Debug)]
pub struct Instance {
    name: Name,
    /// Who asks.
    uid: u32,
}

impl Instance {
    /// The one with this name, asked by this user.
    #[must_use]
    pub const fn new(name: Name, uid: u32) -> Self {
        Self { name, uid }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// [`Error`].
    pub fn get(&self, path: &str) -> Result<Answer, Error> {
        self.ask(Method::GET, path, Bytes::new())
    }

    /// `POST path` with `body` as JSON.
    ///
    /// # Errors
    /// [`Error`].
    pub fn post(&self, path: &str, body: &impl Serialize) -> Result<Answer, Error> {
        let body = serde_json::to_vec(body).map_err(|error| Error::System(error.into()))?;
        self.ask(Method::POST, path, body.into())
    }

    fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, Error> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "halfopen")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Error::System(io::Error::other(error)))?;
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::System)?;
        runtime
            .block_on(async { timeout(PATIENCE, self.answer(request)).await.unwrap_or(Err(Error::TooSlow)) })
    }

    async fn answer(&self, request: Request<Full<Bytes>>) -> Result<Answer, Error> {
        let stream = self.connect().await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|_| Error::Closed)?;
        // It ends with the runtime.
        tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(|_| Error::Closed)?;
        let (head, body) = response.into_parts();
        let version = version(&head.headers);
        let body = match Limited::new(body, LONGEST).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                return Err(Error::OtherVersion(version));
            }
            Err(_) => return Err(Error::Closed),
        };
        let answer = Answer { body, version };
        if head.status.is_success() {
            return Ok(answer);
        }
        let problem = answer.read()?;
        Err(Error::Refused(head.status, problem))
    }

    async fn connect(&self) -> Result<UnixStream, Error> {
        let stream =
            UnixStream::connect(format!("\0{}", self.name)).await.map_err(|error| match error.kind() {
                ErrorKind::ConnectionRefused | ErrorKind::NotFound => Error::NotThere,
                // Connections wait for it, as many as there may: it is stopped, perhaps.
                ErrorKind::WouldBlock => Error::TooSlow,
                _ => Error::System(error),
            })?;
        // Anybody can take such a name, and whoever is not asked for would answer nothing.
        let owner = stream.peer_cred().map_err(Error::System)?.uid();
        if self.uid == 0 || self.uid == owner { Ok(stream) } else { Err(Error::Foreign(owner)) }
    }
}

/// Who answers, as it says.
fn version(headers: &HeaderMap) -> String {
    let said = headers.get(SERVER).and_then(|said| said.to_str().ok());
    said.map_or_else(|| "no halfopen".to_owned(), |said| said.chars().take(40).collect())
}
