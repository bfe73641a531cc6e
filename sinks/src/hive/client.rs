//! Calls to a Hive Metastore: thrift, binary protocol, no SASL. Each call has a deadline.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hive_metastore as hms;
use hms::{
    AddPartitionsRequest, FieldSchema, GetTableRequest, Partition, SerDeInfo, StorageDescriptor,
    Table, ThriftHiveMetastoreClient, ThriftHiveMetastoreClientBuilder,
};
use pilota::{AHashMap, FastStr};
use volo_thrift::{ClientError, MaybeException};

use crate::parquet::schema::Column;

/// A metastore that answers takes milliseconds; one that makes directories in a bucket takes seconds.
const DEADLINE: Duration = Duration::from_secs(20);
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

const INPUT_FORMAT: &str = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat";
const OUTPUT_FORMAT: &str = "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat";
const SERDE: &str = "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe";

/// The metastores of a list, each as `host:port`, and which of them comes first. All clones agree on that.
#[derive(Debug, Clone)]
pub struct Addresses {
    all: Arc<[String]>,
    first: Arc<AtomicUsize>,
}

impl Addresses {
    pub fn new(all: Vec<String>) -> Addresses {
        Addresses {
            all: all.into(),
            first: Arc::default(),
        }
    }

    /// From the one that comes first, round the list; each with its number.
    fn in_turn(&self) -> impl Iterator<Item = (usize, &String)> {
        let first = self.first.load(Ordering::Relaxed);
        let (before, after) = self.all.split_at(first);
        let turn = (first..).zip(after);
        turn.chain(before.iter().enumerate())
    }

    /// This one is asked something. A metastore may take connections and say nothing, so until it answers, the next one comes first: also
    /// where whoever asked gives up waiting.
    fn asked(&self, number: usize) {
        self.first
            .store((number + 1) % self.all.len(), Ordering::Relaxed);
    }

    fn answered(&self, number: usize) {
        self.first.store(number, Ordering::Relaxed);
    }
}

/// Where the metastore is and which table is ours.
#[derive(Debug, Clone)]
pub struct Place {
    pub addresses: Addresses,
    pub database: String,
    pub table: String,
    /// Where the table's files are, as Hive sees them.
    pub location: String,
}

/// A table as the metastore has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Name and type in Hive's words.
    pub columns: Vec<(String, String)>,
    pub partition_keys: Vec<(String, String)>,
    pub location: String,
    pub input_format: String,
    /// In seconds; 0 where the metastore does not say. A table that was dropped and made anew is another one.
    pub created: i32,
}

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No metastore could be reached or answered in time; asking again may help.
    #[error("{0}")]
    Unreachable(String),
    /// The metastore said no.
    #[error("{0}")]
    Refused(String),
}

impl CallError {
    pub fn reason(&self) -> &'static str {
        match self {
            CallError::Unreachable(_) => "unreachable",
            CallError::Refused(_) => "refused",
        }
    }
}

/// A connection (volo keeps it pooled) to the first metastore that could be reached.
pub struct Client {
    client: ThriftHiveMetastoreClient,
    address: String,
    number: usize,
    addresses: Addresses,
}

impl Client {
    /// Connects to one of the addresses, the first that takes a connection.
    pub async fn connect(addresses: &Addresses) -> Result<Client, CallError> {
        let mut failures = Vec::new();
        for (number, address) in addresses.in_turn() {
            match reach(address).await {
                Ok(socket) => {
                    let client = ThriftHiveMetastoreClientBuilder::new("hive-metastore")
                        .make_codec(volo_thrift::codec::default::DefaultMakeCodec::buffered())
                        .rpc_timeout(Some(DEADLINE))
                        .connect_timeout(Some(CONNECT_DEADLINE))
                        .read_write_timeout(Some(DEADLINE))
                        .address(socket)
                        .build();
                    return Ok(Client {
                        client,
                        address: address.clone(),
                        number,
                        addresses: addresses.clone(),
                    });
                }
                Err(error) => failures.push(format!("{address}: {error}")),
            }
        }
        Err(CallError::Unreachable(format!(
            "no metastore of sink.hive.metastore.uri can be reached: {}",
            failures.join("; ")
        )))
    }

    /// The table, or `None` where the database has none of this name.
    pub async fn table(&self, place: &Place) -> Result<Option<Found>, CallError> {
        use hms::ThriftHiveMetastoreGetTableReqException as Exception;
        let request = GetTableRequest {
            db_name: text(&place.database),
            tbl_name: text(&place.table),
            capabilities: None,
        };
        match self.call(self.client.get_table_req(request)).await? {
            MaybeException::Ok(result) => Ok(Some(found(result.table))),
            MaybeException::Exception(Exception::O2(_)) => Ok(None),
            MaybeException::Exception(Exception::O1(error)) => {
                Err(self.ill("get_table", error.message))
            }
        }
    }

    /// Whether the database exists.
    pub async fn has_database(&self, place: &Place) -> Result<bool, CallError> {
        use hms::ThriftHiveMetastoreGetDatabaseException as Exception;
        match self
            .call(self.client.get_database(text(&place.database)))
            .await?
        {
            MaybeException::Ok(_) => Ok(true),
            MaybeException::Exception(Exception::O1(_)) => Ok(false),
            MaybeException::Exception(Exception::O2(error)) => {
                Err(self.ill("get_database", error.message))
            }
        }
    }

    /// Creates the external table. `false`: it was there already, another worker was first.
    pub async fn create_table(
        &self,
        place: &Place,
        columns: &[Column],
        partition_keys: &[String],
    ) -> Result<bool, CallError> {
        use hms::ThriftHiveMetastoreCreateTableException as Exception;
        let table = new_table(place, columns, partition_keys);
        match self.call(self.client.create_table(table)).await? {
            MaybeException::Ok(()) => Ok(true),
            MaybeException::Exception(Exception::O1(_)) => Ok(false),
            MaybeException::Exception(Exception::O2(error)) => {
                Err(self.refused("create_table", error.message))
            }
            MaybeException::Exception(Exception::O3(error)) => {
                Err(self.refused("create_table", error.message))
            }
            MaybeException::Exception(Exception::O4(error)) => Err(CallError::Refused(format!(
                "metastore {}: create_table: there is no database {} (sink.hive.database): {}",
                self.address,
                place.database,
                error.message.unwrap_or_default()
            ))),
        }
    }

    /// Adds partitions, each as its path below the location and its values; those that are there already stay as they are.
    pub async fn add_partitions(
        &self,
        place: &Place,
        columns: &[(String, String)],
        partitions: &[(String, Vec<String>)],
    ) -> Result<(), CallError> {
        use hms::ThriftHiveMetastoreAddPartitionsReqException as Exception;
        let parts = partitions
            .iter()
            .map(|(path, values)| Partition {
                values: Some(values.iter().map(|value| text(value)).collect()),
                db_name: Some(text(&place.database)),
                table_name: Some(text(&place.table)),
                sd: Some(storage(columns, &format!("{}/{path}", place.location))),
                parameters: Some(AHashMap::new()),
                ..Partition::default()
            })
            .collect();
        let request = AddPartitionsRequest {
            db_name: text(&place.database),
            tbl_name: text(&place.table),
            parts,
            if_not_exists: true,
            need_result: Some(false),
            cat_name: None,
        };
        match self.call(self.client.add_partitions_req(request)).await? {
            // Another worker added one of them at the same moment: the caller asks again, and finds it there.
            MaybeException::Exception(Exception::O2(error)) => {
                Err(CallError::Unreachable(format!(
                    "another worker was first: {}",
                    error.message.unwrap_or_default()
                )))
            }
            MaybeException::Ok(_) => Ok(()),
            MaybeException::Exception(Exception::O1(error)) => {
                Err(self.refused("add_partitions", error.message))
            }
            MaybeException::Exception(Exception::O3(error)) => {
                Err(self.refused("add_partitions", error.message))
            }
        }
    }

    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, CallError> {
        self.addresses.asked(self.number);
        match tokio::time::timeout(DEADLINE, call).await {
            Ok(Ok(answer)) => {
                self.addresses.answered(self.number);
                Ok(answer)
            }
            Ok(Err(error)) => Err(CallError::Unreachable(format!(
                "metastore {}: {error}",
                self.address
            ))),
            Err(_) => Err(CallError::Unreachable(format!(
                "metastore {} did not answer within {} s",
                self.address,
                DEADLINE.as_secs()
            ))),
        }
    }

    /// As [`Client::refused`], where no call of its kind is refused for what it asks: the trouble is mostly the metastore's own, with its
    /// database, and the next one comes first.
    fn ill(&self, call: &str, message: Option<FastStr>) -> CallError {
        self.addresses.asked(self.number);
        self.refused(call, message)
    }

    fn refused(&self, call: &str, message: Option<FastStr>) -> CallError {
        CallError::Refused(format!(
            "metastore {}: {call}: {}",
            self.address,
            message.unwrap_or_default()
        ))
    }
}

/// Resolves an address and makes sure that something takes connections there.
async fn reach(address: &str) -> Result<SocketAddr, String> {
    let connect = async {
        let mut last = "the name has no address".to_owned();
        let found = tokio::net::lookup_host(address)
            .await
            .map_err(|error| error.to_string())?;
        for socket in found {
            match tokio::net::TcpStream::connect(socket).await {
                Ok(_) => return Ok(socket),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    };
    tokio::time::timeout(CONNECT_DEADLINE, connect)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", CONNECT_DEADLINE.as_secs())))
}

fn text(text: &str) -> FastStr {
    FastStr::from_string(text.to_owned())
}

fn found(table: Table) -> Found {
    let storage = table.sd.unwrap_or_default();
    let named = |fields: Option<Vec<FieldSchema>>| {
        fields
            .unwrap_or_default()
            .into_iter()
            .map(|field| {
                (
                    field.name.unwrap_or_default().to_string(),
                    field.r#type.unwrap_or_default().to_string(),
                )
            })
            .collect()
    };
    Found {
        columns: named(storage.cols),
        partition_keys: named(table.partition_keys),
        location: storage.location.unwrap_or_default().to_string(),
        input_format: storage.input_format.unwrap_or_default().to_string(),
        created: table.create_time.unwrap_or_default(),
    }
}

fn fields(columns: &[(String, String)]) -> Vec<FieldSchema> {
    columns
        .iter()
        .map(|(name, kind)| FieldSchema {
            name: Some(text(name)),
            r#type: Some(text(kind)),
            comment: None,
        })
        .collect()
}

fn storage(columns: &[(String, String)], location: &str) -> StorageDescriptor {
    let format = [("serialization.format", "1")];
    StorageDescriptor {
        cols: Some(fields(columns)),
        location: Some(text(location)),
        input_format: Some(text(INPUT_FORMAT)),
        output_format: Some(text(OUTPUT_FORMAT)),
        compressed: Some(false),
        num_buckets: Some(-1),
        serde_info: Some(SerDeInfo {
            name: None,
            serialization_lib: Some(text(SERDE)),
            parameters: Some(parameters(&format)),
        }),
        bucket_cols: Some(Vec::new()),
        sort_cols: Some(Vec::new()),
        parameters: Some(AHashMap::new()),
        ..StorageDescriptor::default()
    }
}

fn parameters(pairs: &[(&str, &str)]) -> AHashMap<FastStr, FastStr> {
    pairs
        .iter()
        .map(|(name, value)| (text(name), text(value)))
        .collect()
}

/// Columns as the metastore wants them: Hive's words, names in lower case.
pub fn hive_columns(columns: &[Column]) -> Vec<(String, String)> {
    columns
        .iter()
        .map(|column| {
            (
                column.name.to_lowercase(),
                column.kind.to_string().to_lowercase(),
            )
        })
        .collect()
}

fn new_table(place: &Place, columns: &[Column], partition_keys: &[String]) -> Table {
    let keys: Vec<(String, String)> = partition_keys
        .iter()
        .map(|name| (name.to_lowercase(), "string".to_owned()))
        .collect();
    Table {
        table_name: Some(text(&place.table)),
        db_name: Some(text(&place.database)),
        owner: Some(text("keystone")),
        sd: Some(storage(&hive_columns(columns), &place.location)),
        partition_keys: Some(fields(&keys)),
        // Dropping the table leaves the files: they are not Hive's.
        table_type: Some(text("EXTERNAL_TABLE")),
        parameters: Some(parameters(&[
            ("EXTERNAL", "TRUE"),
            ("created_by", "keystone"),
        ])),
        ..Table::default()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::tests::metastore::Metastore;
    use super::*;

    async fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        (listener, address)
    }

    fn place(addresses: Addresses) -> Place {
        Place {
            addresses,
            database: "default".to_owned(),
            table: "t".to_owned(),
            location: "file:///t".to_owned(),
        }
    }

    #[test]
    fn the_turn_goes_round_the_list_and_stays_where_it_was_answered() {
        let all = ["a", "b", "c"].map(str::to_owned);
        let addresses = Addresses::new(all.to_vec());
        let turn = || -> Vec<(usize, String)> {
            let turn = addresses.in_turn();
            turn.map(|(number, address)| (number, address.clone()))
                .collect()
        };
        let owned = |turn: [(usize, &str); 3]| turn.map(|(n, address)| (n, address.to_owned()));
        assert_eq!(turn(), owned([(0, "a"), (1, "b"), (2, "c")]));
        addresses.asked(0);
        assert_eq!(turn(), owned([(1, "b"), (2, "c"), (0, "a")]));
        // Two that ask the same one skip no other.
        addresses.asked(0);
        addresses.asked(1);
        addresses.answered(1);
        assert_eq!(turn(), owned([(1, "b"), (2, "c"), (0, "a")]));
        addresses.clone().asked(2);
        assert_eq!(turn(), owned([(0, "a"), (1, "b"), (2, "c")]));
    }

    #[tokio::test]
    async fn a_metastore_whose_database_fails_gives_its_turn_away() {
        let (ill, well) = (Metastore::start("dt").await, Metastore::start("dt").await);
        ill.holds().is_ill = true;
        well.holds().refuses_partitions = true;
        let addresses = [&ill, &well].map(|metastore| metastore.address.clone());
        let place = place(Addresses::new(addresses.to_vec()));
        let connected = async || Client::connect(&place.addresses).await.unwrap();
        let first = connected().await;
        assert_eq!(first.address, ill.address);
        let error = first.table(&place).await.unwrap_err();
        assert!(matches!(error, CallError::Refused(_)), "{error}");
        let second = connected().await;
        assert_eq!(second.address, well.address);
        assert!(second.table(&place).await.unwrap().is_some());
        // A partition may be refused for what it is.
        let partition = ("dt=1".to_owned(), vec!["1".to_owned()]);
        let added = second.add_partitions(&place, &[], &[partition]).await;
        assert!(matches!(added, Err(CallError::Refused(_))), "{added:?}");
        assert_eq!(connected().await.address, well.address);
    }

    #[tokio::test]
    async fn a_metastore_that_takes_connections_and_is_silent_gives_its_turn_away() {
        // The kernel takes connections for it.
        let (_silent, silent) = listener().await;
        let (ill, rude) = listener().await;
        tokio::spawn(async move {
            while let Ok((connection, _)) = ill.accept().await {
                drop(connection);
            }
        });
        let place = place(Addresses::new(vec![silent.clone(), rude.clone()]));
        let connected = async || Client::connect(&place.addresses).await.unwrap();
        let first = connected().await;
        assert_eq!(first.address, silent);
        // Whoever asks does not wait until the call's own deadline.
        let asking = tokio::time::timeout(Duration::from_millis(50), first.table(&place));
        assert!(asking.await.is_err(), "it is silent");
        let second = connected().await;
        assert_eq!(second.address, rude);
        let error = second.table(&place).await.unwrap_err();
        assert!(
            matches!(&error, CallError::Unreachable(text) if text.contains(&rude)),
            "{error}"
        );
        assert_eq!(connected().await.address, silent, "round the list");
    }
}
