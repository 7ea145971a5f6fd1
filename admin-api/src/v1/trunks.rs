use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;

use super::App;
use crate::control::{Control, TrunkView};
use crate::error::Problem;

#[derive(Serialize)]
pub(super) struct TrunkList {
    trunks: Vec<TrunkView>,
}

pub(super) async fn list<C: Control>(State(app): State<Arc<App<C>>>) -> Result<Json<TrunkList>, Problem> {
    Ok(Json(TrunkList { trunks: app.control.trunks().await? }))
}

pub(super) async fn one<C: Control>(
    State(app): State<Arc<App<C>>>,
    Path(name): Path<String>,
) -> Result<Json<TrunkView>, Problem> {
    let trunks = app.control.trunks().await?;
    trunks
        .into_iter()
        .find(|trunk| trunk.name == name)
        .map(Json)
        .ok_or_else(|| Problem::not_found("no trunk of that name is configured: see /v1/trunks"))
}
