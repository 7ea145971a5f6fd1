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
    if from.is_some() && trunk.is_some() {
        let detail = "a call comes from an overlay user or by a trunk: give from or trunk, not both";
        return Err(Problem::bad_parameter("trunk", detail));
    }
    if let Some(trunk) = &trunk {
        let known: Vec<String> = app.control.trunks().await?.into_iter().map(|known| known.name).collect();
        if !known.iter().any(|name| name == trunk.as_str()) {
            let there_are = if known.is_empty() {
                "there are none".into()
            } else {
                format!("there are: {}", known.join(", "))
            };
            let detail = format!("no trunk is called {trunk}; {there_are}");
            return Err(Problem::bad_parameter("trunk", detail));
        }
    }
    Ok(Json(app.control.route_test(to, from, trunk).await?))
}
