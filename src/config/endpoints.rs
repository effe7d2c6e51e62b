//! The values of endpoints that stand outside the config.

use std::sync::Arc;

use toml::Spanned;

use crate::config::problem::ConfigProblem;
use crate::config::settings::{AccountConfig, CommonConfig, Endpoint};
use crate::config::values::{endpoint, issuer};
use crate::secret::Secret;

/// A value from elsewhere that is no endpoint.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct EndpointFlaw {
    message: String,
    pub hint: String,
}

impl From<ConfigProblem> for EndpointFlaw {
    fn from(problem: ConfigProblem) -> Self {
        Self { message: problem.message, hint: problem.hint }
    }
}

impl AccountConfig {
    /// With the values that [`EndpointSources`](crate::config::source::EndpointSources) lead to.
    pub fn with_endpoints(&self, values: &[(&'static str, Secret)]) -> Result<Self, EndpointFlaw> {
        let mut common = CommonConfig::clone(&self.common);
        let allow_http = common.allow_http;
        for (key, value) in values {
            let text = Spanned::new(0..0, value.expose().to_owned());
            if *key == "issuer" {
                let issuer = issuer(&text)?;
                if common.endpoint == Endpoint::Elsewhere {
                    common.endpoint = Endpoint::Discovered { issuer: issuer.clone() };
                }
                common.issuer = Some(issuer);
                continue;
            }
            let url = endpoint(key, &text, allow_http)?;
            match *key {
                "token_endpoint" => common.endpoint = Endpoint::Explicit(url),
                "authorization_endpoint" => common.login.authorization_endpoint = Some(url),
                "device_authorization_endpoint" => common.login.device_authorization_endpoint = Some(url),
                _ => common.login.revocation_endpoint = Some(url),
            }
        }
        Ok(Self { common: Arc::new(common), ..self.clone() })
    }
}
