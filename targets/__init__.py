"""What is audited: data, models, training loops, reference mechanisms and planted faults."""
