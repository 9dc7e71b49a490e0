//! The `trebol` command: `serve`, `dev`, `status`, `verify`.
