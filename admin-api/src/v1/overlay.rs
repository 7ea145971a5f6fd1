use std::sync::Arc;

use axum::Json;
use axum::extract::State;

use super::App;
use crate::control::Control;
use crate::error::Problem;
use crate::overlay::OverlayView;

/// `GET /v1/overlay`.
pub(crate) async fn show<C: Control>(State(app): State<Arc<App<C>>>) -> Result<Json<OverlayView>, Problem> {
    Ok(Json(app.control.overlay().await?))
}
