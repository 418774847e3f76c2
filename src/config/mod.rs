//! Settings: file and environment become raw values, raw values become a checked [`Config`], or a list of faults.
