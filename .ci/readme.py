"""Writes what the README says as files that compile.

program ROOT: the `cargo add` lines, and the first Rust block.
snippets ROOT: all further Rust blocks, each in a function or a module with what the text around it takes for granted.
"""

import re
import sys

what, root = sys.argv[1:]
with open(f"{root}/README.md", encoding="utf-8") as file:
    blocks = re.findall(r"^```([^\n]*)\n(.*?)^```$", file.read(), re.MULTILINE | re.DOTALL)
rust = [text for language, text in blocks if language.startswith("rust")]

if what == "program":
    for language, text in blocks:
        if language == "sh":
            print("".join(line for line in text.splitlines(True) if line.startswith("cargo add ")), end="")
    print(rust[0], end="")
    sys.exit()

PREAMBLE = """
#![allow(dead_code, unused)]
use std::time::{Duration, SystemTime};
use actix::{ActorContext, AsyncContext};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use actix_workpool::testing::{self, TestRuntime};
use actix_workpool::web::{Authorizer, Permissions, Pool, PoolName, Refusal, workpool_dashboard};
use actix_workpool::{
    Action, ActionContext, CatchUp, Completed, Conflict, KeyRule, Overlap, PoolConfig, Priority, Rate, RetryBehavior, Runtime,
    RuntimeBuilder, Schedule, Unique, WorkError, WorkId, Workpool,
};
type Any = Box<dyn std::error::Error>;

#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct SendEmail { to: String }
impl Action for SendEmail {
    const NAME: &'static str = "send_email";
    type Output = String;
    async fn run(self, _: ActionContext) -> Result<String, WorkError> { Ok(self.to) }
}
#[derive(serde::Serialize, serde::Deserialize)]
struct CountWords { text: String }
impl Action for CountWords {
    const NAME: &'static str = "count_words";
    type Output = u64;
    async fn run(self, _: ActionContext) -> Result<u64, WorkError> { Ok(0) }
}
struct Texts;
impl PoolName for Texts { const NAME: &'static str = "texts"; }
fn authorizer(_: &HttpRequest) -> Result<Permissions, Refusal> { Ok(Permissions::read_only()) }
fn mail() -> SendEmail { SendEmail { to: String::new() } }
fn builder() -> RuntimeBuilder { Runtime::builder() }
async fn sign_up(pool: &Workpool, to: &str) -> Result<(), Any> { Ok(()) }
struct Sender { pool: Workpool }
impl actix::Actor for Sender { type Context = actix::Context<Self>; }
impl actix::Handler<Completed<SendEmail, String>> for Sender {
    type Result = ();
    fn handle(&mut self, _: Completed<SendEmail, String>, _: &mut Self::Context) {}
}
fn main() {}
"""
print(PREAMBLE)
for number, text in enumerate(rust[1:]):
    if "self.pool" in text:
        print(f"impl Sender {{ fn snippet_{number}(&self, to: String, ctx: &mut actix::Context<Sender>) -> Result<(), Any> {{")
        print(text, "Ok(()) } }")
    elif text.lstrip().startswith("use ") or "impl " in text:
        print(f"mod snippet_{number} {{ {text} }}")
    elif "async fn upload" in text:
        items, statements = text.split("}\n", 1)
        print(items, "}")
        print(f"async fn snippet_{number}(runtime: Runtime) -> Result<(), Any> {{ {statements} Ok(()) }}")
    elif "testing::run" in text:
        body = text.rstrip().removesuffix("})")
        print(f"fn snippet_{number}() -> Result<(), Any> {{ {body} Ok(()) }}) }}")
    else:
        given = "pool: Workpool, tomorrow: SystemTime, id: WorkId, builder: RuntimeBuilder"
        print(f"async fn snippet_{number}({given}) -> Result<(), Any> {{ {text} Ok(()) }}")
