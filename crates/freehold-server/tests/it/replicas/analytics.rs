//! Analytics collected on a replica: the figures are right, whatever becomes of it.
