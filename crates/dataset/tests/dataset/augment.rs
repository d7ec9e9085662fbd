//! Properties of the augmentation.
