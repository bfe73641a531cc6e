//! A metastore that answers as a test says.

use hive_metastore as hms;
use hms::ThriftHiveMetastoreAddPartitionsReqArgsRecv as Adding;
use hms::ThriftHiveMetastoreAddPartitionsReqResultSend as Added;
use hms::ThriftHiveMetastoreGetTableReqResultSend as Got;
use pilota::thrift::binary::TBinaryProtocol;
use pilota::thrift::{Message, TInputProtocol, TMessageIdentifier, TMessageType, TOutputProtocol};
use pilota::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

pub(crate) struct Metastore {
    pub address: String,
    pub holds: Arc<Mutex<Holds>>,
}

#[derive(Default)]
pub(crate) struct Holds {
    pub table: hms::Table,
    /// Its own database fails it.
    pub is_ill: bool,
    pub refuses_partitions: bool,
    /// Requests.
    pub asked: usize,
    /// The last part of the location of each partition that was added.
    pub added: Vec<String>,
}

impl Metastore {
    /// It has a table of no columns, with this partition key.
    pub(crate) async fn start(key: &str) -> Metastore {
        let text = |text: &str| Some(pilota::FastStr::new(text));
        let key = hms::FieldSchema {
            name: text(key),
            r#type: text("string"),
            comment: None,
        };
        let storage = hms::StorageDescriptor {
            input_format: text("MapredParquetInputFormat"),
            ..Default::default()
        };
        let table = hms::Table {
            sd: Some(storage),
            partition_keys: Some(vec![key]),
            ..Default::default()
        };
        let holds = Holds {
            table,
            ..Holds::default()
        };
        let holds = Arc::new(Mutex::new(holds));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = holds.clone();
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                tokio::spawn(serve(connection, shared.clone()));
            }
        });
        Metastore { address, holds }
    }

    pub(crate) fn holds(&self) -> MutexGuard<'_, Holds> {
        lock(&self.holds)
    }
}

/// Each read is a request: they are small.
async fn serve(mut connection: TcpStream, holds: Arc<Mutex<Holds>>) -> std::io::Result<()> {
    let mut request = BytesMut::with_capacity(64 << 10);
    while connection.read_buf(&mut request).await? > 0 {
        let answer = lock(&holds).answer(request.split().freeze());
        connection.write_all(&answer).await?;
        request.reserve(64 << 10);
    }
    Ok(())
}

impl Holds {
    fn answer(&mut self, mut request: Bytes) -> BytesMut {
        let mut request = TBinaryProtocol::new(&mut request, false);
        let call = request.read_message_begin().unwrap();
        self.asked += 1;
        match &*call.name {
            "get_table_req" => reply(call, &self.get_table()),
            "add_partitions_req" => {
                let Adding { request } = Message::decode(&mut request).unwrap();
                reply(call, &self.add_partitions(request))
            }
            other => panic!("{other} is not played"),
        }
    }

    fn get_table(&self) -> Got {
        match self.is_ill {
            true => Got::O1(exception()),
            false => Got::Ok(hms::GetTableResult {
                table: self.table.clone(),
            }),
        }
    }

    fn add_partitions(&mut self, request: hms::AddPartitionsRequest) -> Added {
        if self.refuses_partitions {
            return Added::O3(exception());
        }
        for partition in request.parts {
            let location = partition.sd.and_then(|storage| storage.location).unwrap();
            let (_, last) = location.rsplit_once('/').unwrap();
            self.added.push(last.to_owned());
        }
        Added::Ok(hms::AddPartitionsResult::default())
    }
}

fn exception() -> hms::MetaException {
    hms::MetaException {
        message: Some("the database is ill".into()),
    }
}

fn reply(call: TMessageIdentifier, result: &impl Message) -> BytesMut {
    let mut answer = BytesMut::new();
    let mut protocol = TBinaryProtocol::new(&mut answer, false);
    let begin = TMessageIdentifier {
        message_type: TMessageType::Reply,
        ..call
    };
    protocol.write_message_begin(&begin).unwrap();
    result.encode(&mut protocol).unwrap();
    protocol.write_message_end().unwrap();
    answer
}
