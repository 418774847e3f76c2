//! The Agent's DDSketch: eps 1/128, bias 1338, at most 4096 bins, 16-bit counts.

/// One bin on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bin {
    pub key: i16,
    pub n: u16,
}

/// A distribution of one window. The fields are what `Dogsketch` carries.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sketch {
    /// Sorted by key; a key whose count passes 65,535 stands in several bins, the remainder first.
    pub bins: Vec<Bin>,
    pub count: u64,
    pub min: f64,
    pub max: f64,
    pub sum: f64,
    pub avg: f64,
}
