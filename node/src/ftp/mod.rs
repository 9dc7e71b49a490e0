//! The client side: RFC 959 with explicit TLS (RFC 4217). One client is bytes → command → session → verb.
