//! [`Netdevs`]: who makes representors where no hardware does.

use std::fmt;
use std::io;

use crate::IfName;

/// Makes real netdevs that stand for representors where there is no hardware to make them.
pub trait Netdevs: Send + Sync + fmt::Debug {
    /// A representor appears: down, with the default MTU.
    ///
    /// # Errors
    /// Where it can't be made, such as where the name is taken.
    fn appear(&self, name: &IfName) -> io::Result<()>;

    /// A representor vanishes.
    fn vanish(&self, name: &IfName);
}
