//! Arguments and settings: what is wrong is named with its remedy.
