//! Where the two programs listen.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use anyhow::{Context, Result, bail};

/// Where a neuron listens when nothing else does.
const NEURON: u16 = 13131;

/// Ports on loopback that were free a moment ago.
#[derive(Debug)]
pub(crate) struct Ports {
    pub(crate) cortex: u16,
    pub(crate) neuron: u16,
}

impl Ports {
    /// `cortex` as asked for, or an error; for the neuron its usual port or any that is free.
    pub(crate) fn choose(cortex: u16) -> Result<Self> {
        let taken = match bind(cortex) {
            Ok(listener) => listener,
            Err(error) if error.kind() == ErrorKind::AddrInUse => bail!(
                "port {cortex} is in use: stop what listens there, or name another with --port"
            ),
            Err(error) => {
                return Err(error).with_context(|| {
                    format!("port {cortex} cannot be used: name another with --port")
                });
            }
        };
        let other = bind(NEURON).or_else(|_| bind(0)).context("no port is free for the neuron")?;
        let neuron = other.local_addr().context("a bound port has no address")?.port();
        drop(taken);
        Ok(Self { cortex, neuron })
    }

    pub(crate) fn cortex_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.cortex)
    }

    pub(crate) fn neuron_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.neuron)
    }
}

fn bind(port: u16) -> std::io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_is_named_with_the_way_out() {
        let taken = bind(0).expect("a free port");
        let port = taken.local_addr().expect("an address").port();
        let error = Ports::choose(port).expect_err("it is in use").to_string();
        assert!(error.contains(&port.to_string()) && error.contains("--port"), "{error}");
    }

    #[test]
    fn the_two_ports_differ() {
        // Also when cortex is asked to take the neuron's usual one.
        let Ok(ports) = Ports::choose(NEURON) else { return };
        assert_ne!(ports.cortex, ports.neuron);
    }
}
