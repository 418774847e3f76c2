//! Profile bytes become a profile, two profiles become what grew and who made it. Pure.
