//! The catalogue of our own metrics: name, unit, labels, a sentence.
