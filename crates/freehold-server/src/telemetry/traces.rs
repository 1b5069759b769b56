//! Traces: a span for each request, continued from its caller's by W3C's `traceparent`, and in it one for
//! each transaction, which the library makes. They go to a collector by OTLP; at most a few thousand wait in
//! memory. They contain a route and ids, but no statement, value or path.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use freehold::TenantId;
use http::{HeaderValue, Response, StatusCode, Uri};
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{Link, SpanKind, TraceId, TracerProvider as _};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::hyper::HyperClient;
use opentelemetry_http::{Bytes, HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingDecision, SamplingResult,
    SdkTracerProvider, ShouldSample,
};
use tokio::runtime::Handle;
use tracing::{Span, Subscriber};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::registry::LookupSpan;

use crate::config::TraceSettings;

/// The target of the library's spans, too.
const TARGET: &str = "freehold::trace";
const SEND_EVERY: Duration = Duration::from_secs(2);
const SEND_MAX: Duration = Duration::from_secs(10);
/// The most ended spans that wait; further ones are dropped, and their number is logged.
const WAITING_MAX: usize = 4096;
const BATCH_MAX: usize = 512;
/// How long a shutdown waits for the last spans.
const END_MAX: Duration = Duration::from_secs(2);

/// The exporter of traces, until it is ended.
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// `None` without a collector.
    pub(super) fn new(settings: &TraceSettings) -> Result<Option<Traces>, String> {
        let headers = settings.headers()?;
        let Some(url) = settings.url()? else { return Ok(None) };
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client::new(&url)?)
            .with_endpoint(url.to_string())
            .with_headers(headers)
            .with_timeout(SEND_MAX)
            .build()
            .map_err(|error| format!("OTLP_ENDPOINT: {error}"))?;
        let batches = BatchConfigBuilder::default()
            .with_scheduled_delay(SEND_EVERY)
            .with_max_queue_size(WAITING_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .build();
        let share = f64::from(settings.trace_percent) / 100.0;
        let requests = Requests(Sampler::TraceIdRatioBased(share));
        let resource = Resource::builder_empty()
            .with_service_name("freehold")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let batches = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(batches)
            .with_sampler(Sampler::ParentBased(Box::new(requests)))
            .with_resource(resource)
            .build();
        Ok(Some(Traces(provider)))
    }

    /// Handles the spans that are meant for traces, and no logs.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + use<S>
    where
        S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        tracing_opentelemetry::layer()
            .with_tracer(self.0.tracer("freehold"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(|metadata| metadata.is_span() && metadata.target() == TARGET))
    }

    /// Sends the remaining spans.
    pub(crate) async fn end(self) {
        let end = move || self.0.shutdown_with_timeout(END_MAX);
        if !matches!(tokio::task::spawn_blocking(end).await, Ok(Ok(()))) {
            tracing::warn!("the last traces could not be sent");
        }
    }
}

/// Begins a trace only for a request, if the caller has not begun one.
#[derive(Clone, Debug)]
struct Requests(Sampler);

impl ShouldSample for Requests {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let mut result = self.0.should_sample(parent, trace, name, kind, attributes, links);
        if *kind != SpanKind::Server {
            result.decision = SamplingDecision::Drop;
        }
        result
    }
}

/// Sends on our runtime what the exporter's own thread requests.
#[derive(Debug)]
struct Client {
    runtime: Handle,
    client: Arc<dyn HttpClient>,
}

impl Client {
    fn new(url: &Uri) -> Result<Client, String> {
        let runtime = Handle::try_current().map_err(|error| error.to_string())?;
        let client: Arc<dyn HttpClient> = match url.scheme_str() {
            Some("https") => {
                let provider = rustls::crypto::ring::default_provider();
                let connector = hyper_rustls::HttpsConnectorBuilder::new()
                    .with_provider_and_native_roots(provider)
                    .map_err(|error| format!("OTLP_ENDPOINT: nobody to trust is known: {error}"))?
                    .https_only()
                    .enable_http1()
                    .build();
                Arc::new(HyperClient::new(connector, SEND_MAX, None))
            }
            _ => Arc::new(HyperClient::with_default_connector(SEND_MAX, None)),
        };
        Ok(Client { runtime, client })
    }
}

#[async_trait::async_trait]
impl HttpClient for Client {
    async fn send_bytes(
        &self,
        request: http::Request<Bytes>,
    ) -> Result<Response<Bytes>, HttpError> {
        let client = Arc::clone(&self.client);
        self.runtime.spawn(async move { client.send_bytes(request).await }).await?
    }
}

/// The span of a request. Probes have none, since they come every few seconds and tell little.
pub(crate) fn request(request: &Request, route: &str, id: &HeaderValue) -> Span {
    if ["/livez", "/readyz", "/metrics"].contains(&route) {
        return Span::none();
    }
    let span = tracing::trace_span!(
        target: TARGET,
        "request",
        "otel.name" = tracing::field::Empty,
        "otel.kind" = "server",
        "http.request.method" = %request.method(),
        "http.route" = route,
        "freehold.request_id" = id.to_str().unwrap_or_default(),
        "http.response.status_code" = tracing::field::Empty,
        "freehold.tenant" = tracing::field::Empty,
        "otel.status_code" = tracing::field::Empty,
    );
    if !span.is_disabled() {
        span.record("otel.name", format!("{} {route}", request.method()));
        let caller = TraceContextPropagator::new().extract(&HeaderExtractor(request.headers()));
        let _ = span.set_parent(caller);
    }
    span
}

/// Records the result.
pub(crate) fn answered(span: &Span, status: StatusCode, tenant: Option<&TenantId>) {
    if span.is_disabled() {
        return;
    }
    span.record("http.response.status_code", status.as_u16());
    if let Some(tenant) = tenant {
        span.record("freehold.tenant", tracing::field::display(tenant));
    }
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}
