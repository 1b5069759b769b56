use std::time::Duration;

/// Bounds of clients' connections.
#[derive(Clone, Debug)]
pub struct ConnectionLimits {
    pub connections_max: usize,
    /// Of one client; `None` where the clients are proxies, which many share.
    pub per_client_max: Option<usize>,
    /// For the head of a request, from its first byte or from the beginning of the connection.
    pub head_max: Duration,
    /// Without a byte that the client takes of its answer.
    pub stall_max: Duration,
    /// Between two requests.
    pub idle_max: Duration,
}
