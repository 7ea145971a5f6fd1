use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use call_model::CallId;
use serde::Deserialize;

use super::App;
use crate::control::{CallFilter, CallList, CallView, Control, Cursor, LadderView, WhyView};
use crate::error::Problem;

const DEFAULT_LIMIT: usize = 50;
const MAX_LIMIT: usize = 250;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    limit: Option<usize>,
    after: Option<String>,
    #[serde(default)]
    live: bool,
}

pub(super) async fn list<C: Control>(
    State(app): State<Arc<App<C>>>,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<CallList>, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_parameter("query", error.body_text()))?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(Problem::bad_parameter("limit", format!("limit is 1 to {MAX_LIMIT}, not {limit}")));
    }
    let after = query.after.map(|text| text.parse::<Cursor>()).transpose();
    let after = after.map_err(|error| Problem::bad_parameter("after", error.to_string()))?;
    Ok(Json(app.control.calls(CallFilter { limit, after, live: query.live }).await?))
}

fn id(text: &str) -> Result<CallId, Problem> {
    text.parse().map_err(|error: call_model::IdError| Problem::bad_parameter("id", error.to_string()))
}

fn found<T>(id: CallId, value: Option<T>) -> Result<Json<T>, Problem> {
    value.map(Json).ok_or_else(|| {
        Problem::not_found(format!("no call {id} is live or among the finished ones that are kept"))
    })
}

pub(super) async fn one<C: Control>(
    State(app): State<Arc<App<C>>>,
    Path(text): Path<String>,
) -> Result<Json<CallView>, Problem> {
    let id = id(&text)?;
    found(id, app.control.call(id).await?)
}

pub(super) async fn why<C: Control>(
    State(app): State<Arc<App<C>>>,
    Path(text): Path<String>,
) -> Result<Json<WhyView>, Problem> {
    let id = id(&text)?;
    found(id, app.control.why(id).await?)
}

pub(super) async fn ladder<C: Control>(
    State(app): State<Arc<App<C>>>,
    Path(text): Path<String>,
) -> Result<Json<LadderView>, Problem> {
    let id = id(&text)?;
    found(id, app.control.ladder(id).await?)
}

pub(super) async fn hang_up<C: Control>(
    State(app): State<Arc<App<C>>>,
    Path(text): Path<String>,
) -> Result<StatusCode, Problem> {
    let id = id(&text)?;
    if app.control.hang_up(id).await? {
        Ok(StatusCode::ACCEPTED)
    } else {
        Err(Problem::not_found(format!("no call {id} is live")))
    }
}
