//! The state that every handler can use: the fleet, sign-in, limits, the data API's model.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use freehold::control::sessions::SignIn;
use freehold::{
    BackgroundTask, Budget, Freehold, OperatorContext, Result, Share, TenantId, Trouble,
};
use http::StatusCode;
use metrics_exporter_prometheus::PrometheusHandle;

use super::arrival::{Bodies, Places};
use super::error::Problem;
use super::readiness::Readiness;
use super::slugs::Slugs;
use crate::config::{HttpSettings, SignUpMode};
use crate::data::{MODEL_SQL, Model};

#[derive(Clone)]
pub struct AppState(Arc<Inner>);

struct Inner {
    freehold: Freehold,
    sign_in: Arc<SignIn>,
    people: PeopleSettings,
    limits: RequestLimits,
    bodies: Bodies,
    answers: Budget,
    answer_bytes_max: u64,
    data_limits: crate::data::Limits,
    batch_limits: crate::data::BatchLimits,
    places: Places,
    model: Arc<RwLock<Arc<Model>>>,
    metrics: PrometheusHandle,
    metrics_token: Option<String>,
    slugs: Slugs,
    readiness: Readiness,
    /// Reloads the model when the baseline changes.
    _running: Vec<BackgroundTask>,
}

/// Sign-in and mail.
#[derive(Clone, Copy, Debug)]
pub struct PeopleSettings {
    pub signup: SignUpMode,
    /// Whether messages are sent.
    pub mail: bool,
}

/// The limits of one request.
pub(super) struct RequestLimits {
    pub(super) time_max: Duration,
    pub(super) trust_forwarded_for: bool,
    /// The sites whose pages may call the API.
    pub(super) cors_origins: Vec<http::HeaderValue>,
}

impl AppState {
    /// # Errors
    /// If the template cannot be read.
    pub async fn new(
        freehold: Freehold,
        sign_in: Arc<SignIn>,
        settings: &HttpSettings,
        people: PeopleSettings,
    ) -> Result<AppState> {
        // Subscribed before the first reading, so that no change falls between the two.
        let changes = freehold.migrations().changes();
        let model = Arc::new(RwLock::new(Arc::new(read_model(&freehold).await?)));
        let (read, kept) = (freehold.clone(), Arc::clone(&model));
        let follow = move || keep_fresh(read.clone(), changes.clone(), Arc::clone(&kept));
        let refresher = freehold.tasks().spawn("model_follower", follow);
        // First, since counts before it would be lost.
        let metrics = crate::telemetry::init_metrics();
        let recorder = metrics.clone();
        let upkeep = move || crate::telemetry::keep_metrics(recorder.clone());
        let upkeep = freehold.tasks().spawn("metrics_upkeep", upkeep);
        let patience = Duration::from_secs(settings.outage_secs);
        let readiness = Readiness::watch(freehold.clone(), patience);
        Ok(AppState(Arc::new(Inner {
            freehold,
            sign_in,
            people,
            limits: RequestLimits {
                time_max: Duration::from_millis(settings.request_timeout_ms),
                trust_forwarded_for: settings.trust_forwarded_for,
                cors_origins: settings.cors_origins.clone(),
            },
            bodies: Bodies {
                bytes_max: settings.max_body_bytes as usize,
                time_max: settings.connections.body_max(),
                budget: Budget::new(settings.connections.buffer_bytes()),
            },
            answers: Budget::new(settings.connections.buffer_bytes()),
            answer_bytes_max: settings.connections.max_answer_bytes,
            data_limits: crate::data::Limits {
                page_rows_max: settings.max_page_rows,
                ..crate::data::Limits::default()
            },
            batch_limits: crate::data::BatchLimits::new(
                settings.max_batch_operations as usize,
                settings.max_page_rows,
            ),
            places: Places::new(settings.max_concurrent_requests),
            model,
            metrics,
            // An empty value counts as not set.
            metrics_token: settings.metrics_token.clone().filter(|token| !token.is_empty()),
            slugs: Slugs::default(),
            readiness,
            _running: vec![refresher, upkeep],
        })))
    }

    pub fn freehold(&self) -> &Freehold {
        &self.0.freehold
    }

    pub(super) fn sign_in(&self) -> &SignIn {
        &self.0.sign_in
    }

    pub(super) fn signup(&self) -> SignUpMode {
        self.0.people.signup
    }

    /// Refuses an operation that ends in a message if mail is off, rather than let a person wait for it in
    /// vain.
    pub(super) fn require_mail(&self) -> std::result::Result<(), Problem> {
        if self.0.people.mail {
            return Ok(());
        }
        Err(Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "mail_off",
            "this service sends no mail, which this needs; its operator turns it on by MAIL",
        ))
    }

    pub(super) fn limits(&self) -> &RequestLimits {
        &self.0.limits
    }

    pub(super) fn bodies(&self) -> &Bodies {
        &self.0.bodies
    }

    /// The memory that an answer of the data API to this tenant may take, for as long as it exists.
    pub(super) fn answer_share(&self, tenant: TenantId) -> Arc<Share> {
        Arc::new(self.0.answers.share_of(tenant.as_uuid().as_u128(), self.0.answer_bytes_max))
    }

    pub(super) fn data_limits(&self) -> &crate::data::Limits {
        &self.0.data_limits
    }

    pub(super) fn batch_limits(&self) -> crate::data::BatchLimits {
        self.0.batch_limits
    }

    pub(super) fn places(&self) -> &Places {
        &self.0.places
    }

    pub(super) fn model(&self) -> Arc<Model> {
        Arc::clone(&self.0.model.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn readiness(&self) -> &Readiness {
        &self.0.readiness
    }

    /// Not ready from now on, and every answer asks the client to reconnect, which leads it to another
    /// server.
    pub fn drain(&self) {
        self.0.readiness.drain();
    }

    pub(super) fn metrics_token(&self) -> Option<&str> {
        self.0.metrics_token.as_deref()
    }

    pub(super) fn slugs(&self) -> &Slugs {
        &self.0.slugs
    }

    pub(super) fn metrics(&self) -> &PrometheusHandle {
        &self.0.metrics
    }
}

async fn read_model(freehold: &Freehold) -> Result<Model> {
    let context = OperatorContext::system("read the model of the data API");
    let json = freehold.migrations().describe_template(&context, MODEL_SQL).await?;
    Model::from_json(&json).map_err(|error| {
        freehold::Error::new(
            freehold::ErrorKind::Internal,
            format!("the template cannot be read: {error}"),
        )
    })
}

async fn keep_fresh(
    freehold: Freehold,
    mut changes: tokio::sync::watch::Receiver<u64>,
    model: Arc<RwLock<Arc<Model>>>,
) {
    let trouble = Trouble::default();
    while changes.changed().await.is_ok() {
        loop {
            let read = read_model(&freehold).await;
            trouble.note(&read, "the template cannot be read; trying again");
            match read {
                Ok(fresh) => {
                    *model.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(fresh);
                    break;
                }
                Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
            }
        }
    }
}
