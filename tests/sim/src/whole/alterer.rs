//! An administrator who changes settings of topics while they are written to, and puts them back in the end.

use std::{rc::Rc, time::Duration};

use kafka_protocol::messages::{
    IncrementalAlterConfigsRequest,
    incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig},
};
use thalweg_shards::runtime::seeded::Stream;

use super::{
    client::{Client, text},
    scene::Scene,
};

const PATIENCE: Duration = Duration::from_secs(10);
const TOPIC: i8 = 2;
const SET: i8 = 0;
const DELETE: i8 = 1;
const POLICY: &str = "cleanup.policy";
const LIMIT: &str = "max.message.bytes";

/// One of them.
pub(crate) struct Alterer(Client);

impl Alterer {
    /// Starts one for three topics, of which the second is cut and the third cleaned.
    pub(crate) fn start(scene: &Rc<Scene>, topics: [&'static str; 3], random: Stream) {
        let alterer = Alterer(Client::new(scene, "alterer", random));
        scene.begin(|scene| &scene.producing, "alterer", Box::pin(alterer.run(topics)));
    }

    async fn run(mut self, [stays, cut, keyed]: [&'static str; 3]) {
        while !self.0.scene.settle.get() {
            self.0.pause_ms(4_000).await;
            match self.0.random.below(5) {
                0 => {
                    let bytes = ["8000", "14000", "20000"][self.0.random.below(3) as usize];
                    self.alter(cut, "retention.bytes", Some(bytes)).await;
                }
                1 => {
                    let codec = ["producer", "uncompressed"][self.0.random.below(2) as usize];
                    self.alter(stays, "compression.type", Some(codec)).await;
                }
                2 => {
                    let before = [None, Some("9223372036854775807")][self.0.random.below(2) as usize];
                    self.alter(stays, "message.timestamp.before.max.ms", before).await;
                }
                3 => {
                    // Meanwhile its log is not cleaned, and what is old goes to manifests; it comes back from there.
                    self.alter(keyed, POLICY, Some("delete")).await;
                    self.0.pause_ms(3_000).await;
                    while !self.alter(keyed, POLICY, Some("compact")).await {}
                }
                _ => {
                    // Larger batches of both topics wait.
                    self.0.scene.turn_limit();
                    let answered = self.alter(stays, LIMIT, Some("700")).await;
                    self.0.pause_ms(1_000).await;
                    if !answered {
                        // It may be done yet, after what is asked over another connection.
                        self.0.scene.pause(PATIENCE).await;
                    }
                    while !self.alter(stays, LIMIT, None).await {}
                    self.0.scene.turn_limit();
                }
            }
        }
    }

    /// Whether it was answered, and well.
    async fn alter(&mut self, topic: &str, key: &str, value: Option<&str>) -> bool {
        let operation = if value.is_some() { SET } else { DELETE };
        let config = AlterableConfig::default()
            .with_name(text(key))
            .with_config_operation(operation)
            .with_value(value.map(text));
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_resource_name(text(topic))
            .with_configs(vec![config]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.0.ask(1, &request, PATIENCE).await;
        let Some(result) = answer.and_then(|mut answer| answer.responses.pop()) else { return false };
        let scene = &self.0.scene;
        scene.trace(|| format!("{topic}: {key} = {value:?} gets {}", result.error_code));
        match result.error_code {
            0 => scene.alterations.set(scene.alterations.get() + 1),
            // Not there yet; not now.
            3 | 7 => self.0.pause_ms(200).await,
            code => {
                let why = format!("{topic}: {key} = {value:?} was refused: {code} {:?}", result.error_message);
                scene.model.borrow_mut().broken(why);
            }
        }
        result.error_code == 0
    }
}
