use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use call_model::{Address, TrunkName};
use serde::Deserialize;

use super::App;
use crate::control::{Control, RouteTest};
use crate::error::Problem;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestQuery {
    to: String,
    from: Option<String>,
    /// The trunk the call would come in by; absent for a call from the overlay.
    trunk: Option<String>,
}

pub(super) async fn test<C: Control>(
    State(app): State<Arc<App<C>>>,
    query: Result<Query<TestQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Json<RouteTest>, Problem> {
    let Query(query) = query.map_err(|error| Problem::bad_parameter("query", error.body_text()))?;
    let address = |name, text: &str| {
        text.parse::<Address>().map_err(|error| Problem::bad_parameter(name, error.to_string()))
    };
    let to = address("to", &query.to)?;
    let from = query.from.as_deref().map(|text| address("from", text)).transpose()?;
    let trunk = query.trunk.map(|text| text.parse::<TrunkName>()).transpose();
    let trunk = trunk.map_err(|error| Problem::bad_parameter("trunk", error.to_string()))?;
    Ok(Json(app.control.route_test(to, from, trunk).await?))
}
