use std::time::Duration;

/// The limits of clients' connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    pub connections_max: usize,
    /// Connections per client; `None` if the clients are proxies, which many people share.
    pub per_client_max: Option<usize>,
    /// For the head of a request, from its first byte or from the connection's start.
    pub head_max: Duration,
    /// For a client that reads nothing of its answer.
    pub stall_max: Duration,
    /// Between two requests.
    pub idle_max: Duration,
}
