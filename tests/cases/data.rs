//! What is trained and measured on is what a file contains, not what it is called.
