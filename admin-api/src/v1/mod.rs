//! The resources under `/v1`.

mod calls;
mod overlay;
mod routes;
mod trunks;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use crate::auth::{Scope, Tokens};
use crate::control::{Control, HealthState, ReloadFailure, Unavailable};
use crate::error::Problem;

/// What every handler shares.
pub(crate) struct App<C> {
    pub(crate) control: C,
    pub(crate) tokens: Tokens,
}

/// Builds the whole router.
pub(crate) fn router<C: Control>(app: Arc<App<C>>) -> Router {
    let guarded = Router::new()
        .route("/v1/calls", get(calls::list::<C>))
        .route("/v1/calls/{id}", get(calls::one::<C>).delete(calls::hang_up::<C>))
        .route("/v1/calls/{id}/why", get(calls::why::<C>))
        .route("/v1/calls/{id}/ladder", get(calls::ladder::<C>))
        .route("/v1/routes/test", get(routes::test::<C>))
        .route("/v1/trunks", get(trunks::list::<C>))
        .route("/v1/trunks/{name}", get(trunks::one::<C>))
        .route("/v1/overlay", get(overlay::show::<C>))
        .route("/v1/reload", post(reload::<C>))
        .route("/v1/health", get(health::<C>))
        .route("/metrics", get(metrics::<C>))
        .fallback(|| async {
            Problem::not_found(
                "there is no such resource: see /v1/health, /v1/calls, /v1/trunks, /v1/overlay",
            )
        })
        .layer(middleware::from_fn_with_state(app.clone(), authorise::<C>));
    // A liveness probe has no token and learns nothing but that the process answers.
    Router::new().route("/healthz", get(|| async { "alive\n" })).merge(guarded).with_state(app)
}

async fn authorise<C: Control>(State(app): State<Arc<App<C>>>, request: Request, next: Next) -> Response {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let reads_only = request.method() == Method::GET || request.method() == Method::HEAD;
    match app.tokens.scope_of(header) {
        None => Problem::unauthorised().into_response(),
        Some(Scope::Read) if !reads_only => Problem::forbidden().into_response(),
        Some(_) => next.run(request).await,
    }
}

async fn health<C: Control>(State(app): State<Arc<App<C>>>) -> Response {
    let health = app.control.health().await;
    let status = match health.state {
        HealthState::Ready => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, Json(health)).into_response()
}

async fn reload<C: Control>(State(app): State<Arc<App<C>>>) -> Response {
    match app.control.reload().await {
        Ok(reloaded) => Json(reloaded).into_response(),
        Err(ReloadFailure::Broken(problem)) => Problem::broken_configuration(problem).into_response(),
        Err(ReloadFailure::Unavailable) => Problem::from(Unavailable).into_response(),
    }
}

async fn metrics<C: Control>(State(app): State<Arc<App<C>>>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.control.metrics()).into_response()
}
