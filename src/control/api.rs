//! The answers of the control socket: HTTP/1.1 with JSON.
//!
//! | request | answer |
//! |---|---|
//! | `GET /v1/flows?after=N&limit=N` | [`Flows`]: open flows by number; `limit` is at most [`MOST_FLOWS`] |
//! | `GET /v1/flows/N` | [`FlowInfo`] of a flow that is open, or has ended and is remembered |
//! | `GET /v1/flows/N/ladder?width=N&ascii=BOOL` | its ladder so far, as [`Text`] |
//! | `POST /v1/flows/N/kill` with a [`Killing`] | the same |
//! | `GET /v1/stats` | the [`Summary`] so far |
//! | `GET /v1/stats/text?width=N&ascii=BOOL` | the same as [`Text`] |
//! | `GET /v1/rules`, `GET /v1/rules/text` | its rules, as JSON and as [`Text`] |
//!
//! What goes wrong is a [`Problem`] with a status: 400 the request is wrong, 404 there is no such flow or ladder, 409 the flow is
//! not in a state for that, 503 the run is at its end.

use std::fmt;
use std::sync::Arc;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

use super::http::Source;
use crate::engine::{FlowInfo, Gone, NotKilled, Remote};
use crate::measure::Measure;
use crate::report::summary::TimeScale;
use crate::report::{Line, Role, Style, Summary, Text};
use crate::time::Instant;
use crate::trace::{FlowId, Kill};

/// Flows in one answer, unless fewer are asked for; and at most.
pub const FLOWS: usize = 1_000;
/// See [`FLOWS`].
pub const MOST_FLOWS: usize = 10_000;
/// Widest that is drawn, in columns.
const MOST_COLUMNS: usize = 1_000;
/// Who answers, so that a client of another version can say so.
pub const SERVER: &str = concat!("halfopen/", env!("CARGO_PKG_VERSION"));

/// Who can be asked about a run and its flows.
pub trait Instance: Source {
    /// The shards.
    fn shards(&self) -> &Remote;

    /// How many flows there have been.
    fn flows(&self) -> u64;

    /// The seed of its dice, the time since its start, and what the time scale does to its rules.
    fn run(&self) -> (u64, Instant, Option<TimeScale>);

    /// The ladder of a flow so far.
    ///
    /// # Errors
    /// Why there is none.
    fn ladder(&self, flow: FlowId, style: &Style) -> Result<Text, NoLadder>;
}

/// Why a flow has no ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoLadder {
    /// No history is kept.
    NoHistory,
    /// It is of another flow by now, or of an earlier one still.
    NotKept,
}

/// Some of the open flows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Flows {
    /// By number.
    pub flows: Vec<FlowInfo>,
    /// How many open flows with higher numbers are left out.
    pub more: usize,
}

/// Which flow is killed, and how.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Killing {
    /// The way.
    pub how: Kill,
}

/// What went wrong.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// One line.
    pub error: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

/// The part of the flows that is asked for.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Part {
    after: u64,
    limit: usize,
}

impl Default for Part {
    fn default() -> Self {
        Self { after: 0, limit: FLOWS }
    }
}

/// How to draw: the query of a request.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Look {
    /// Columns, at most 1000. Default: that of [`Style`].
    pub width: Option<usize>,
    /// Only ASCII.
    pub ascii: bool,
}

impl fmt::Display for Look {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(width) = self.width {
            write!(f, "width={width}&")?;
        }
        write!(f, "ascii={}", self.ascii)
    }
}

impl From<Look> for Style {
    fn from(Look { width, ascii }: Look) -> Self {
        let default = Self::default();
        Self { width: width.unwrap_or(default.width).min(MOST_COLUMNS), ascii, ..default }
    }
}

/// A [`Problem`] with its status.
struct Wrong(StatusCode, Problem);

impl Wrong {
    fn new(status: StatusCode, error: impl Into<String>) -> Self {
        Self(status, Problem { error: error.into(), hint: None })
    }

    fn hint(mut self, hint: &str) -> Self {
        self.1.hint = Some(hint.to_owned());
        self
    }
}

impl IntoResponse for Wrong {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

impl From<Gone> for Wrong {
    fn from(Gone: Gone) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "the run is at its end")
    }
}

/// A request that is not understood.
macro_rules! rejected {
    ($($rejection:ty),*) => {
        $(impl From<$rejection> for Wrong {
            fn from(rejection: $rejection) -> Self {
                Self::new(StatusCode::BAD_REQUEST, rejection.body_text())
            }
        })*
    };
}

rejected!(PathRejection, QueryRejection, JsonRejection);

type Asked = State<Arc<dyn Instance>>;
type Answer<T> = Result<Json<T>, Wrong>;

/// The answers.
pub fn routes(instance: Arc<dyn Instance>) -> Router {
    Router::new()
        .route("/v1/flows", get(flows))
        .route("/v1/flows/{flow}", get(flow))
        .route("/v1/flows/{flow}/ladder", get(ladder))
        .route("/v1/flows/{flow}/kill", post(kill))
        .route("/v1/stats", get(stats))
        .route("/v1/stats/text", get(stats_text))
        .route("/v1/rules", get(rules))
        .route("/v1/rules/text", get(rules_text))
        .fallback(async || Wrong::new(StatusCode::NOT_FOUND, "there is no such path"))
        .layer(axum::middleware::map_response(async |mut response: Response| {
            response.headers_mut().insert(header::SERVER, HeaderValue::from_static(SERVER));
            response
        }))
        .with_state(instance)
}

async fn flows(State(instance): Asked, part: Result<Query<Part>, QueryRejection>) -> Answer<Flows> {
    let Query(Part { after, limit }) = part?;
    let (flows, more) = instance.shards().flows(FlowId(after), limit.min(MOST_FLOWS)).await?;
    Ok(Json(Flows { flows, more }))
}

async fn flow(State(instance): Asked, flow: Result<Path<u64>, PathRejection>) -> Answer<FlowInfo> {
    let Path(flow) = flow?;
    let found = instance.shards().flow(FlowId(flow)).await?;
    found.map(Json).ok_or_else(|| not_here(&*instance, flow))
}

async fn ladder(
    State(instance): Asked,
    flow: Result<Path<u64>, PathRejection>,
    look: Result<Query<Look>, QueryRejection>,
) -> Answer<Text> {
    let (Path(flow), Query(look)) = (flow?, look?);
    let text = instance.ladder(FlowId(flow), &look.into()).map_err(|why| match why {
        NoLadder::NoHistory => Wrong::new(StatusCode::NOT_FOUND, "no ladder: no history is kept")
            .hint("--history N, or control.history in the config, keeps the ladders of the N newest flows"),
        NoLadder::NotKept => Wrong::new(StatusCode::NOT_FOUND, "no ladder: the history has other flows")
            .hint("a larger --history N keeps the ladders of more flows"),
    })?;
    Ok(Json(text))
}

async fn kill(
    State(instance): Asked,
    flow: Result<Path<u64>, PathRejection>,
    killing: Result<Json<Killing>, JsonRejection>,
) -> Answer<Killing> {
    let (Path(flow), Json(killing)) = (flow?, killing?);
    match instance.shards().kill(FlowId(flow), killing.how).await? {
        Ok(()) => Ok(Json(killing)),
        Err(NotKilled::Unknown) => Err(not_here(&*instance, flow)),
        Err(NotKilled::Ended(outcome)) => {
            let error = format!("flow {flow} has ended: {}", outcome.name());
            Err(Wrong::new(StatusCode::CONFLICT, error))
        }
        Err(NotKilled::HalfOpen) => {
            let error = format!("flow {flow} is not open yet, so there is nothing to finish");
            Err(Wrong::new(StatusCode::CONFLICT, error).hint("use --rst or --vanish"))
        }
    }
}

/// A flow that no shard knows: it has been here, or it has not.
fn not_here(instance: &dyn Instance, flow: u64) -> Wrong {
    match instance.flows() {
        flows if (1..=flows).contains(&flow) => {
            Wrong::new(StatusCode::CONFLICT, format!("flow {flow} has ended"))
        }
        0 => Wrong::new(StatusCode::NOT_FOUND, format!("there is no flow {flow}; there has been none")),
        flows => {
            let error = format!("there is no flow {flow}; the last one is {flows}");
            Wrong::new(StatusCode::NOT_FOUND, error)
        }
    }
}

async fn stats(State(instance): Asked) -> Response {
    let measure = instance.snapshot().measure;
    Json(summary(&*instance, &measure)).into_response()
}

async fn stats_text(State(instance): Asked, look: Result<Query<Look>, QueryRejection>) -> Answer<Text> {
    let Query(look) = look?;
    let measure = instance.snapshot().measure;
    Ok(Json(summary(&*instance, &measure).draw(&look.into())))
}

async fn rules(State(instance): Asked) -> Response {
    Json(instance.snapshot().measure.rules()).into_response()
}

async fn rules_text(State(instance): Asked, look: Result<Query<Look>, QueryRejection>) -> Answer<Text> {
    let Query(look) = look?;
    let measure = instance.snapshot().measure;
    let lines = summary(&*instance, &measure).rule_table(&look.into());
    Ok(Json(match lines.is_empty() {
        true => Text(vec![Line::of(Role::Dim, "no rules")]),
        // Without the space between it and the rest of a summary.
        false => Text(lines.into_iter().skip_while(|line| line.0.is_empty()).collect()),
    }))
}

/// The summary of a run that goes on: what is open now is told as it would be if it ended now.
fn summary<'a>(instance: &dyn Instance, measure: &'a Measure) -> Summary<'a> {
    let (seed, now, time_scale) = instance.run();
    let mut summary = Summary { time_scale, ..Summary::new(measure, seed, now) };
    summary.counters.outcomes.open = summary.counters.open;
    summary
}
