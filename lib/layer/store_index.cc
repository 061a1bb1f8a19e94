#include "lib/layer/store_index.h"

#include <sys/stat.h>

#include <algorithm>
#include <iterator>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "lib/base/errno_error.h"
#include "lib/base/status_macros.h"
#include "lib/layer/image_name.h"

namespace caisson::layer {
namespace {

// "cais" in ASCII, which file(1) and others see in the header of the database.
constexpr int kApplicationId = 0x63616973;

// What makes version i + 1 of version i.
constexpr const char* kVersions[] = {R"sql(
CREATE TABLE documents(
  digest TEXT PRIMARY KEY NOT NULL,
  content BLOB NOT NULL
);
CREATE TABLE images(
  id TEXT PRIMARY KEY NOT NULL REFERENCES documents(digest),
  manifest_digest TEXT REFERENCES documents(digest),
  os TEXT NOT NULL,
  architecture TEXT NOT NULL,
  variant TEXT NOT NULL,
  size INTEGER NOT NULL,
  imported INTEGER NOT NULL
);
CREATE INDEX images_by_manifest ON images(manifest_digest);
CREATE TABLE names(
  name TEXT PRIMARY KEY NOT NULL,
  image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE
);
CREATE INDEX names_by_image ON names(image);
CREATE TABLE image_layers(
  image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
  position INTEGER NOT NULL,
  diff_id TEXT NOT NULL,
  chain_id TEXT NOT NULL,
  size INTEGER NOT NULL,
  PRIMARY KEY(image, position)
);
CREATE INDEX image_layers_by_chain ON image_layers(chain_id);
CREATE TABLE layers(
  format TEXT NOT NULL,
  chain_id TEXT NOT NULL,
  diff_id TEXT NOT NULL,
  size INTEGER NOT NULL,
  PRIMARY KEY(format, chain_id)
);
)sql",
                                     R"sql(
ALTER TABLE layers ADD COLUMN seal TEXT NOT NULL DEFAULT '';
CREATE TABLE leases(
  name TEXT NOT NULL,
  image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
  expires INTEGER NOT NULL,
  PRIMARY KEY(name, image)
);
CREATE INDEX leases_by_image ON leases(image);
)sql"};
static_assert(std::size(kVersions) == kIndexVersion);

using Kind = SqlTransaction::Kind;

// The first column of all rows of `query`.
absl::StatusOr<std::vector<std::string>> Column(
    absl::StatusOr<SqlQuery> query) {
  RETURN_IF_ERROR(query.status());
  std::vector<std::string> values;
  for (;;) {
    ASSIGN_OR_RETURN(const bool row, query->Next());
    if (!row) return values;
    values.push_back(query->Text(0));
  }
}

absl::Status NoImage(absl::string_view id) {
  return absl::NotFoundError(
      absl::StrCat("there is no image ", id, " in the store"));
}

absl::Status Damaged(const absl::Status& status) {
  return absl::DataLossError(
      absl::StrCat("index.db is damaged: ", status.message()));
}

absl::StatusOr<Digest> StoredDigest(const std::string& text) {
  absl::StatusOr<Digest> digest = Digest::Parse(text, "digest");
  if (!digest.ok()) return Damaged(digest.status());
  return digest;
}

std::vector<std::string> Familiar(std::vector<std::string> names) {
  for (std::string& name : names) name = FamiliarName(name);
  std::sort(names.begin(), names.end());
  return names;
}

// Of a row with name, image and expires.
ImageLease StoredLease(const SqlQuery& query) {
  constexpr int64_t kNever = std::numeric_limits<int64_t>::max();
  const int64_t expires = query.Int(2);
  return {.name = query.Text(0),
          .image = query.Text(1),
          .expires = expires == kNever ? absl::InfiniteFuture()
                                       : absl::FromUnixMicros(expires)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<StoreIndex>> StoreIndex::Open(
    const std::string& path, absl::Duration busy_timeout) {
  ASSIGN_OR_RETURN(Sqlite db, Sqlite::Open(path, busy_timeout));
  std::unique_ptr<StoreIndex> index(new StoreIndex(std::move(db)));
  RETURN_IF_ERROR(index->CreateSchema());
  return index;
}

std::unique_ptr<StoreIndex> StoreIndex::OpenPresent(
    const std::string& path, absl::Duration busy_timeout) {
  struct stat status = {};
  // An empty one is about to be made: not twice at once.
  if (::stat(path.c_str(), &status) != 0 || status.st_size == 0) return nullptr;
  absl::StatusOr<Sqlite> db = Sqlite::Open(path, busy_timeout);
  if (!db.ok()) return nullptr;
  std::unique_ptr<StoreIndex> index(new StoreIndex(*std::move(db)));
  const absl::StatusOr<bool> present = index->IsPresent();
  if (!present.ok() || !*present) return nullptr;
  return index;
}

absl::StatusOr<bool> StoreIndex::IsPresent() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(const auto id, Column(db_.Query("PRAGMA application_id")));
  ASSIGN_OR_RETURN(const auto version,
                   Column(db_.Query("PRAGMA user_version")));
  return id.front() == absl::StrCat(kApplicationId) &&
         version.front() == absl::StrCat(kIndexVersion);
}

absl::Status StoreIndex::CreateSchema() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(auto transaction, SqlTransaction::Begin(db_, Kind::kWrite));
  ASSIGN_OR_RETURN(const auto id, Column(db_.Query("PRAGMA application_id")));
  ASSIGN_OR_RETURN(const auto version,
                   Column(db_.Query("PRAGMA user_version")));
  const std::string ours = absl::StrCat(kApplicationId);
  int from = 0;
  if (!absl::SimpleAtoi(version.front(), &from)) from = -1;
  if (id.front() != ours && !(id.front() == "0" && from == 0)) {
    return absl::FailedPreconditionError(
        "index.db is a database of another program");
  }
  if (from < 0 || from > kIndexVersion) {
    return absl::FailedPreconditionError(absl::StrCat(
        "index.db has version ", version.front(),
        ", but this version of the library reads up to ", kIndexVersion));
  }
  if (from == kIndexVersion) return absl::OkStatus();
  for (int next = from; next < kIndexVersion; ++next) {
    RETURN_IF_ERROR(db_.RunScript(kVersions[next]));
  }
  RETURN_IF_ERROR(
      db_.RunScript(absl::StrCat("PRAGMA application_id=", ours,
                                 "; PRAGMA user_version=", kIndexVersion)
                        .c_str()));
  return transaction.Commit();
}

absl::Status StoreIndex::AddDocument(const Digest& digest,
                                     const std::string& content) {
  return db_.Run(
      "INSERT INTO documents(digest, content) VALUES(?, CAST(? AS BLOB)) "
      "ON CONFLICT DO NOTHING",
      digest.str(), content);
}

absl::Status StoreIndex::PutName(absl::string_view name, absl::string_view id) {
  return db_.Run(
      "INSERT INTO names(name, image) VALUES(?, ?) "
      "ON CONFLICT(name) DO UPDATE SET image=excluded.image",
      name, id);
}

absl::Status StoreIndex::AddImage(absl::string_view format,
                                  const ImageRecord& image) {
  uint64_t size = 0;
  for (const LayerRecord& layer : image.layers) size += layer.size;
  const std::string& id = image.id.str();
  RETURN_IF_ERROR(AddDocument(image.id, image.config_json));
  RETURN_IF_ERROR(db_.Run(
      "INSERT INTO images(id, os, architecture, variant, size, imported) "
      "VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
      id, image.platform.os, image.platform.architecture,
      image.platform.variant, size, absl::ToUnixMicros(absl::Now())));
  if (image.manifest_digest.has_value()) {
    RETURN_IF_ERROR(AddDocument(*image.manifest_digest, image.manifest_json));
    RETURN_IF_ERROR(db_.Run("UPDATE images SET manifest_digest=? WHERE id=?",
                            image.manifest_digest->str(), id));
  }
  for (size_t i = 0; i < image.layers.size(); ++i) {
    const LayerRecord& layer = image.layers[i];
    RETURN_IF_ERROR(
        db_.Run("INSERT INTO image_layers(image, position, diff_id, chain_id, "
                "size) VALUES(?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                id, i, layer.diff_id.str(), layer.chain_id.str(), layer.size));
    RETURN_IF_ERROR(
        db_.Run("INSERT INTO layers(format, chain_id, diff_id, size, seal) "
                "VALUES(?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                format, layer.chain_id.str(), layer.diff_id.str(), layer.size,
                layer.seal));
  }
  for (const std::string& name : image.names) {
    RETURN_IF_ERROR(PutName(name, id));
  }
  if (image.lease.has_value()) RETURN_IF_ERROR(PutLease(*image.lease));
  return absl::OkStatus();
}

absl::Status StoreIndex::Add(absl::string_view format,
                             const std::vector<ImageRecord>& images) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(auto transaction, SqlTransaction::Begin(db_, Kind::kWrite));
  for (const ImageRecord& image : images) {
    RETURN_IF_ERROR(AddImage(format, image));
  }
  return transaction.Commit();
}

absl::StatusOr<std::optional<LayerRecord>> StoreIndex::FindLayer(
    absl::string_view format, const Digest& chain_id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(SqlQuery query,
                   db_.Query("SELECT diff_id, size, seal FROM layers "
                             "WHERE format=? AND chain_id=?",
                             format, chain_id.str()));
  ASSIGN_OR_RETURN(const bool found, query.Next());
  if (!found) return std::nullopt;
  ASSIGN_OR_RETURN(Digest diff_id, StoredDigest(query.Text(0)));
  return LayerRecord{.chain_id = chain_id,
                     .diff_id = std::move(diff_id),
                     .size = static_cast<uint64_t>(query.Int(1)),
                     .seal = query.Text(2)};
}

absl::StatusOr<std::vector<StoredLayer>> StoreIndex::AllLayers() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(SqlQuery query,
                   db_.Query("SELECT format, chain_id FROM layers"));
  std::vector<StoredLayer> layers;
  for (;;) {
    ASSIGN_OR_RETURN(const bool row, query.Next());
    if (!row) return layers;
    ASSIGN_OR_RETURN(Digest chain_id, StoredDigest(query.Text(1)));
    layers.push_back({.format = query.Text(0), .chain_id = chain_id});
  }
}

absl::StatusOr<std::optional<std::string>> StoreIndex::IdOfName(
    absl::string_view name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(
      auto ids,
      Column(db_.Query("SELECT image FROM names WHERE name=?", name)));
  if (ids.empty()) return std::nullopt;
  return ids.front();
}

absl::StatusOr<std::vector<std::string>> StoreIndex::IdsOfManifest(
    const Digest& digest) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return Column(
      db_.Query("SELECT id FROM images WHERE manifest_digest=?", digest.str()));
}

absl::StatusOr<std::vector<std::string>> StoreIndex::IdsOfPrefix(
    absl::string_view prefix, size_t limit) {
  // A range instead of LIKE, so that the primary key serves it. "~" is behind
  // every hexadecimal digit.
  const std::lock_guard<std::mutex> lock(mutex_);
  return Column(db_.Query("SELECT id FROM images WHERE id>=? AND id<? LIMIT ?",
                          prefix, absl::StrCat(prefix, "~"), limit));
}

absl::StatusOr<bool> StoreIndex::HasImage(absl::string_view id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(auto ids,
                   Column(db_.Query("SELECT id FROM images WHERE id=?", id)));
  return !ids.empty();
}

absl::StatusOr<std::vector<Digest>> StoreIndex::ImagesWith(
    const Digest& chain_id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(
      const auto ids,
      Column(
          db_.Query("SELECT DISTINCT image FROM image_layers WHERE chain_id=?",
                    chain_id.str())));
  std::vector<Digest> images;
  for (const std::string& text : ids) {
    ASSIGN_OR_RETURN(Digest id, StoredDigest(text));
    images.push_back(std::move(id));
  }
  return images;
}

absl::StatusOr<bool> StoreIndex::LacksLayer(absl::string_view image,
                                            const Digest& chain_id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  // One statement sees one moment.
  ASSIGN_OR_RETURN(
      SqlQuery query,
      db_.Query("SELECT 1 FROM image_layers WHERE image=?1 AND chain_id=?2 AND "
                "NOT EXISTS (SELECT 1 FROM layers WHERE chain_id=?2) LIMIT 1",
                image, chain_id.str()));
  return query.Next();
}

absl::StatusOr<std::string> StoreIndex::Document(absl::string_view digest) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(
      auto found, Column(db_.Query(
                      "SELECT content FROM documents WHERE digest=?", digest)));
  if (!found.empty()) return std::move(found.front());
  return absl::NotFoundError(
      absl::StrCat("there is no document ", digest, " in the store"));
}

absl::StatusOr<std::optional<std::string>> StoreIndex::DocumentOf(
    absl::string_view image, absl::string_view digest) {
  const std::lock_guard<std::mutex> lock(mutex_);
  // One statement sees one moment.
  ASSIGN_OR_RETURN(
      SqlQuery query,
      db_.Query(
          "SELECT digest IS NULL, content FROM images LEFT JOIN documents "
          "ON digest=?1 WHERE id=?2 AND ?1 IN (id, manifest_digest)",
          digest, image));
  ASSIGN_OR_RETURN(const bool row, query.Next());
  if (!row) return std::nullopt;
  if (query.Int(0) == 0) return query.Text(1);
  return absl::NotFoundError(
      absl::StrCat("there is no document ", digest, " in the store"));
}

absl::StatusOr<Image> StoreIndex::Get(absl::string_view id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(auto transaction, SqlTransaction::Begin(db_, Kind::kRead));
  Image image;
  {
    ASSIGN_OR_RETURN(
        SqlQuery query,
        db_.Query("SELECT id, manifest_digest, content FROM images "
                  "JOIN documents ON digest=id WHERE id=?",
                  id));
    ASSIGN_OR_RETURN(const bool found, query.Next());
    if (!found) return NoImage(id);
    image.id = query.Text(0);
    image.manifest_digest = query.Text(1);
    image.config_json = query.Text(2);
  }
  ASSIGN_OR_RETURN(
      auto names,
      Column(db_.Query("SELECT name FROM names WHERE image=?", id)));
  image.names = Familiar(std::move(names));
  ASSIGN_OR_RETURN(SqlQuery query,
                   db_.Query("SELECT diff_id, chain_id, size FROM image_layers "
                             "WHERE image=? ORDER BY position",
                             id));
  for (;;) {
    ASSIGN_OR_RETURN(const bool row, query.Next());
    if (!row) return image;
    image.layers.push_back({.diff_id = query.Text(0),
                            .chain_id = query.Text(1),
                            .size = static_cast<uint64_t>(query.Int(2))});
  }
}

absl::StatusOr<std::vector<Digest>> StoreIndex::LayersOf(absl::string_view id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  // The outer join keeps an image without layers.
  ASSIGN_OR_RETURN(
      SqlQuery query,
      db_.Query("SELECT chain_id FROM images LEFT JOIN image_layers ON "
                "image=id WHERE id=? ORDER BY position",
                id));
  std::vector<Digest> chain;
  bool found = false;
  for (;; found = true) {
    ASSIGN_OR_RETURN(const bool row, query.Next());
    if (!row) break;
    const std::string text = query.Text(0);
    if (text.empty()) continue;
    ASSIGN_OR_RETURN(Digest chain_id, StoredDigest(text));
    chain.push_back(std::move(chain_id));
  }
  if (!found) return NoImage(id);
  return chain;
}

absl::StatusOr<std::vector<LayerRecord>> StoreIndex::LayerRecordsOf(
    absl::string_view id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(SqlQuery query,
                   db_.Query("SELECT chain_id, diff_id, size FROM image_layers "
                             "WHERE image=? ORDER BY position",
                             id));
  std::vector<LayerRecord> records;
  for (;;) {
    ASSIGN_OR_RETURN(const bool row, query.Next());
    if (!row) return records;
    ASSIGN_OR_RETURN(Digest chain_id, StoredDigest(query.Text(0)));
    ASSIGN_OR_RETURN(Digest diff_id, StoredDigest(query.Text(1)));
    records.push_back({.chain_id = std::move(chain_id),
                       .diff_id = std::move(diff_id),
                       .size = static_cast<uint64_t>(query.Int(2))});
  }
}

absl::StatusOr<std::vector<std::string>> StoreIndex::CheckIntegrity() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(auto lines, Column(db_.Query("PRAGMA integrity_check")));
  if (lines == std::vector<std::string>{"ok"}) lines.clear();
  ASSIGN_OR_RETURN(
      const auto tables,
      Column(db_.Query(
          "SELECT DISTINCT \"table\" FROM pragma_foreign_key_check")));
  for (const std::string& table : tables) {
    lines.push_back(absl::StrCat("rows of ", table, " refer to nothing"));
  }
  return lines;
}

absl::StatusOr<std::vector<ImageSummary>> StoreIndex::List() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(auto transaction, SqlTransaction::Begin(db_, Kind::kRead));
  std::map<std::string, std::vector<std::string>> names;
  {
    ASSIGN_OR_RETURN(SqlQuery query,
                     db_.Query("SELECT image, name FROM names"));
    for (;;) {
      ASSIGN_OR_RETURN(const bool row, query.Next());
      if (!row) break;
      names[query.Text(0)].push_back(query.Text(1));
    }
  }
  ASSIGN_OR_RETURN(
      SqlQuery query,
      db_.Query("SELECT id, manifest_digest, os, architecture, variant, size, "
                "imported FROM images ORDER BY imported DESC, id"));
  std::vector<ImageSummary> images;
  for (;;) {
    ASSIGN_OR_RETURN(const bool row, query.Next());
    if (!row) return images;
    ImageSummary image{.id = query.Text(0), .manifest_digest = query.Text(1)};
    image.names = Familiar(std::move(names[image.id]));
    image.platform = {.os = query.Text(2),
                      .architecture = query.Text(3),
                      .variant = query.Text(4)};
    image.size = static_cast<uint64_t>(query.Int(5));
    image.imported = absl::FromUnixMicros(query.Int(6));
    images.push_back(std::move(image));
  }
}

absl::StatusOr<StoreIndex::NameSample> StoreIndex::SampleNames(size_t limit) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(
      auto names,
      Column(db_.Query("SELECT name FROM names UNION ALL SELECT id FROM images "
                       "WHERE id NOT IN (SELECT image FROM names)")));
  NameSample sample;
  sample.names = Familiar(std::move(names));
  if (sample.names.size() > limit) {
    sample.more = sample.names.size() - limit;
    sample.names.resize(limit);
  }
  return sample;
}

absl::StatusOr<std::vector<std::string>> StoreIndex::NamesOf(
    absl::string_view id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return Column(db_.Query("SELECT name FROM names WHERE image=?", id));
}

absl::Status StoreIndex::SetName(absl::string_view name, absl::string_view id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(auto transaction, SqlTransaction::Begin(db_, Kind::kWrite));
  ASSIGN_OR_RETURN(auto ids,
                   Column(db_.Query("SELECT id FROM images WHERE id=?", id)));
  if (ids.empty()) return NoImage(id);
  RETURN_IF_ERROR(PutName(name, id));
  return transaction.Commit();
}

absl::Status StoreIndex::RemoveName(absl::string_view name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return db_.Run("DELETE FROM names WHERE name=?", name);
}

// ---- leases ----

absl::Status StoreIndex::PutLease(const ImageLease& lease) {
  return db_.Run(
      "INSERT INTO leases(name, image, expires) VALUES(?, ?, ?) "
      "ON CONFLICT(name, image) DO UPDATE SET expires=excluded.expires",
      lease.name, lease.image, absl::ToUnixMicros(lease.expires));
}

absl::Status StoreIndex::SetLease(const ImageLease& lease) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(auto transaction, SqlTransaction::Begin(db_, Kind::kWrite));
  ASSIGN_OR_RETURN(
      auto ids,
      Column(db_.Query("SELECT id FROM images WHERE id=?", lease.image)));
  if (ids.empty()) return NoImage(lease.image);
  RETURN_IF_ERROR(PutLease(lease));
  return transaction.Commit();
}

absl::Status StoreIndex::EndLease(absl::string_view name) {
  const std::lock_guard<std::mutex> lock(mutex_);
  RETURN_IF_ERROR(db_.Run("DELETE FROM leases WHERE name=?", name));
  if (db_.changes() > 0) return absl::OkStatus();
  return absl::NotFoundError(
      absl::StrCat("there is no lease ", Quoted(name), " in the store"));
}

absl::StatusOr<std::vector<ImageLease>> StoreIndex::Leases(absl::Time now) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(SqlQuery query,
                   db_.Query("SELECT name, image, expires FROM leases "
                             "WHERE expires>? ORDER BY name, image",
                             absl::ToUnixMicros(now)));
  std::vector<ImageLease> leases;
  for (;;) {
    ASSIGN_OR_RETURN(const bool row, query.Next());
    if (!row) return leases;
    leases.push_back(StoredLease(query));
  }
}

absl::StatusOr<std::optional<ImageLease>> StoreIndex::LeaseOf(
    absl::string_view image, absl::Time now) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(SqlQuery query,
                   db_.Query("SELECT name, image, expires FROM leases WHERE "
                             "image=? AND expires>? ORDER BY expires DESC",
                             image, absl::ToUnixMicros(now)));
  ASSIGN_OR_RETURN(const bool row, query.Next());
  if (!row) return std::nullopt;
  return StoredLease(query);
}

// ---- what is not needed any more ----

absl::StatusOr<std::vector<StoredLayer>> StoreIndex::RemoveUnreferenced() {
  std::vector<StoredLayer> removed;
  {
    ASSIGN_OR_RETURN(SqlQuery query,
                     db_.Query("DELETE FROM layers WHERE chain_id NOT IN "
                               "(SELECT chain_id FROM image_layers) "
                               "RETURNING format, chain_id"));
    for (;;) {
      ASSIGN_OR_RETURN(const bool row, query.Next());
      if (!row) break;
      ASSIGN_OR_RETURN(Digest chain_id, StoredDigest(query.Text(1)));
      removed.push_back({.format = query.Text(0), .chain_id = chain_id});
    }
  }
  RETURN_IF_ERROR(
      db_.Run("DELETE FROM documents WHERE digest NOT IN "
              "(SELECT id FROM images UNION ALL SELECT manifest_digest FROM "
              "images WHERE manifest_digest IS NOT NULL)"));
  return removed;
}

absl::StatusOr<std::vector<std::string>> StoreIndex::Unreferenced() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return Column(
      db_.Query("SELECT chain_id FROM layers WHERE chain_id NOT IN "
                "(SELECT chain_id FROM image_layers) UNION "
                "SELECT digest FROM documents WHERE digest NOT IN "
                "(SELECT id FROM images UNION ALL SELECT manifest_digest FROM "
                "images WHERE manifest_digest IS NOT NULL) ORDER BY 1"));
}

absl::Status StoreIndex::SetSeal(absl::string_view format,
                                 const Digest& chain_id,
                                 absl::string_view seal) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return db_.Run("UPDATE layers SET seal=? WHERE format=? AND chain_id=?", seal,
                 format, chain_id.str());
}

absl::Status StoreIndex::SetLayerSize(const Digest& chain_id, uint64_t size) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(auto transaction, SqlTransaction::Begin(db_, Kind::kWrite));
  RETURN_IF_ERROR(db_.Run("UPDATE layers SET size=? WHERE chain_id=?", size,
                          chain_id.str()));
  RETURN_IF_ERROR(db_.Run("UPDATE image_layers SET size=? WHERE chain_id=?",
                          size, chain_id.str()));
  RETURN_IF_ERROR(db_.Run(
      "UPDATE images SET size=(SELECT SUM(size) FROM image_layers WHERE "
      "image=id) WHERE id IN (SELECT image FROM image_layers WHERE "
      "chain_id=?)",
      chain_id.str()));
  return transaction.Commit();
}

absl::StatusOr<size_t> StoreIndex::Sweep(absl::Time now) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t time = absl::ToUnixMicros(now);
  // Most often there is nothing to do, and then nothing is written.
  ASSIGN_OR_RETURN(
      const auto found,
      Column(db_.Query(
          "SELECT EXISTS(SELECT 1 FROM leases WHERE expires<=?) OR "
          "EXISTS(SELECT 1 FROM layers WHERE chain_id NOT IN "
          "(SELECT chain_id FROM image_layers)) OR "
          "EXISTS(SELECT 1 FROM documents WHERE digest NOT IN "
          "(SELECT id FROM images UNION ALL SELECT manifest_digest FROM "
          "images WHERE manifest_digest IS NOT NULL))",
          time)));
  if (found.front() == "0") return 0;
  ASSIGN_OR_RETURN(auto transaction, SqlTransaction::Begin(db_, Kind::kWrite));
  RETURN_IF_ERROR(db_.Run("DELETE FROM leases WHERE expires<=?", time));
  const size_t expired = static_cast<size_t>(db_.changes());
  RETURN_IF_ERROR(RemoveUnreferenced().status());
  RETURN_IF_ERROR(transaction.Commit());
  return expired;
}

absl::StatusOr<std::vector<StoredLayer>> StoreIndex::RemoveImage(
    absl::string_view id) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ASSIGN_OR_RETURN(auto transaction, SqlTransaction::Begin(db_, Kind::kWrite));
  RETURN_IF_ERROR(db_.Run("DELETE FROM images WHERE id=?", id));
  if (db_.changes() == 0) return NoImage(id);
  ASSIGN_OR_RETURN(auto removed, RemoveUnreferenced());
  RETURN_IF_ERROR(transaction.Commit());
  return removed;
}

}  // namespace caisson::layer
