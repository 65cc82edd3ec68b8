//! Everything together: [`status`] is what it says about itself.

pub mod status;
