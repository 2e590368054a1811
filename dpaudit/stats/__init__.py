"""From evidence to bounds: each estimator takes one sampling design, as a type."""
