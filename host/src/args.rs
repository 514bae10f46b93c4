//! The structs of arguments of launches, all from one macro.

use crate::place::{Given, Place};

/// Buffers of a launch at most, of all requests.
pub(crate) const BUFFER_LIMIT: usize = 10;

/// Whether a launch reads or writes a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// It only reads.
    Read,
    /// It writes, and does not read what it did not write.
    Write,
}

/// A field of a struct of arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name, which is the buffer's.
    pub name: &'static str,
    /// What launches do with it.
    pub access: Access,
    /// Whether it is given only where the request says so.
    pub optional: bool,
}

/// The buffers of a launch, each at its field's place.
pub struct Buffers<P: Place> {
    pub(crate) given: [Option<Given<P>>; BUFFER_LIMIT],
    pub(crate) workspace: Option<P::Workspace>,
}

/// A struct of arguments.
pub trait Args<P: Place> {
    /// Its fields, in the order of [`Buffers`].
    const FIELDS: &'static [Field];

    /// Takes it apart.
    fn into_buffers(self) -> Buffers<P>;
}

/// Declares a request's struct of arguments: `new` takes what every launch needs, in the order
/// said here; each optional buffer has a setter.
macro_rules! args {
    ($(#[$doc:meta])* $name:ident {
        read $($(#[$read_doc:meta])* $read:ident),*;
        write $($(#[$write_doc:meta])* $write:ident),*;
        optional read $($(#[$maybe_doc:meta])* $maybe_read:ident),*;
        optional write $($(#[$may_doc:meta])* $maybe_write:ident),*;
    }) => {
        $(#[$doc])*
        pub struct $name<P: $crate::place::Place> {
            $($read: P::Read,)*
            $($write: P::Write,)*
            $($maybe_read: Option<P::Read>,)*
            $($maybe_write: Option<P::Write>,)*
            workspace: Option<P::Workspace>,
        }

        impl<P: $crate::place::Place> $name<P> {
            /// The buffers of every launch, each from its tensor's first element on.
            #[allow(clippy::too_many_arguments, reason = "as many as a launch always brings")]
            pub fn new($($read: impl Into<P::Read>,)* $($write: impl Into<P::Write>,)*) -> Self {
                $name {
                    $($read: $read.into(),)*
                    $($write: $write.into(),)*
                    $($maybe_read: None,)*
                    $($maybe_write: None,)*
                    workspace: None,
                }
            }

            $($(#[$maybe_doc])*
            pub fn $maybe_read(mut self, $maybe_read: impl Into<P::Read>) -> Self {
                self.$maybe_read = Some($maybe_read.into());
                self
            })*

            $($(#[$may_doc])*
            pub fn $maybe_write(mut self, $maybe_write: impl Into<P::Write>) -> Self {
                self.$maybe_write = Some($maybe_write.into());
                self
            })*

            /// Memory to work in, of [`Plan::workspace_bytes`](crate::Plan::workspace_bytes) at
            /// least; not looked at where the plan needs none.
            pub fn workspace(mut self, workspace: impl Into<P::Workspace>) -> Self {
                self.workspace = Some(workspace.into());
                self
            }
        }

        impl<P: $crate::place::Place> $crate::args::Args<P> for $name<P> {
            const FIELDS: &'static [$crate::args::Field] = {
                use $crate::args::{Access, BUFFER_LIMIT, Field};
                const fn field(name: &'static str, access: Access, optional: bool) -> Field {
                    Field { name, access, optional }
                }
                const FIELDS: &[Field] = &[
                    $(field(stringify!($read), Access::Read, false),)*
                    $(field(stringify!($write), Access::Write, false),)*
                    $(field(stringify!($maybe_read), Access::Read, true),)*
                    $(field(stringify!($maybe_write), Access::Write, true),)*
                ];
                assert!(FIELDS.len() <= BUFFER_LIMIT, "more buffers than launches keep places for");
                FIELDS
            };

            fn into_buffers(self) -> $crate::args::Buffers<P> {
                use $crate::place::Given;
                let mut given = [const { None }; $crate::args::BUFFER_LIMIT];
                let fields = [
                    $(Some(Given::Read(self.$read)),)*
                    $(Some(Given::Write(self.$write)),)*
                    $(self.$maybe_read.map(Given::Read),)*
                    $(self.$maybe_write.map(Given::Write),)*
                ];
                for (place, field) in given.iter_mut().zip(fields) {
                    *place = field;
                }
                $crate::args::Buffers { given, workspace: self.workspace }
            }
        }

        impl<P: $crate::place::Place> std::fmt::Debug for $name<P> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($name)).finish_non_exhaustive()
            }
        }
    };
}

pub(crate) use args;
