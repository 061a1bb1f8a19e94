#include "lib/base/json_document.h"

#include <cstdint>
#include <limits>
#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "lib/base/status_matchers.h"

namespace caisson {
namespace {

using ::caisson::testing::StatusIs;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

std::string Repeat(absl::string_view text, int count) {
  std::string all;
  for (int i = 0; i < count; ++i) absl::StrAppend(&all, text);
  return all;
}

TEST(ParseJsonTest, RefusesWhatParsersReadDifferently) {
  const struct {
    std::string text;
    std::string error;
  } cases[] = {
      {"", "doc.json: invalid JSON at byte"},
      {"{", "invalid JSON at byte 2"},
      {R"({"a":1} x)", "invalid JSON at byte 9"},
      {R"({"a":1,"b":{"c":2,"c":3}})", R"(b.c: the name "c" occurs twice)"},
      {R"({"a":[1,{},{"b":[[0,{"c":2,"c":3}]]}]})",
       R"(a[2].b[0][1].c: the name "c" occurs twice)"},
      {R"({"a":1,"\u0061":2})", R"(the name "a" occurs twice)"},
      {R"([{"a":1,"a":2}])", R"(the name "a" occurs twice)"},
      {"\"\xff\xfe\"", "invalid JSON"},
      {"[1,]", "invalid JSON"},
      {"[1e999]", "invalid JSON"},
      {"// comment\n{}", "invalid JSON"},
      {"[NaN]", "invalid JSON"},
      {Repeat("[", 65) + Repeat("]", 65), "nested deeper than 64 levels"},
      {Repeat("{\"a\":", 65) + "1" + Repeat("}", 65), "nested deeper than 64"},
      {Repeat("[", 1'000'000), "nested deeper than 64"},
      {"[" + Repeat("0,", 250'000) + "0]", "more than 250000 values"},
  };
  for (const auto& c : cases) {
    EXPECT_THAT(ParseJson(c.text, "doc.json"),
                StatusIs(kInvalid, HasSubstr(c.error)))
        << c.text.substr(0, 60);
  }
}

TEST(ParseJsonTest, ReadsWhatIsAllowed) {
  EXPECT_OK(ParseJson("{}", "x"));
  EXPECT_OK(ParseJson("[1]\n\n", "x"));
  EXPECT_OK(ParseJson(Repeat("[", 64) + Repeat("]", 64), "x"));
  EXPECT_OK(ParseJson(R"([{"a":1},{"a":1}])", "x"));
}

class JsonObjectTest : public ::testing::Test {
 protected:
  JsonObject Make(absl::string_view text) {
    json_ = *ParseJson(text, "d");
    return *JsonObject::Of(json_, "d");
  }

  nlohmann::json json_;
};

TEST_F(JsonObjectTest, ReadsTypedFields) {
  const JsonObject object = Make(R"({"s":"text", "l":["a","b"], "n":null,
      "m":{"k":"v"}, "p":{"80/tcp":{}}, "size":9007199254740993,
      "o":{"list":[{"x":"1"},{"x":"2"}]}})");
  EXPECT_EQ(*object.String("s"), "text");
  EXPECT_EQ(*object.String("n"), "");
  EXPECT_EQ(*object.String("missing"), "");
  EXPECT_TRUE(object.Has("s"));
  EXPECT_FALSE(object.Has("n"));
  EXPECT_FALSE(object.Has("missing"));
  EXPECT_THAT(*object.Strings("l"), ElementsAre("a", "b"));
  EXPECT_THAT(*object.Strings("n"), ElementsAre());
  EXPECT_THAT(*object.StringMap("m"), ElementsAre(Pair("k", "v")));
  EXPECT_THAT(*object.Names("p"), ElementsAre("80/tcp"));
  EXPECT_EQ(*object.Size("size"), 9007199254740993u);
  ASSERT_OK_AND_ASSIGN(JsonObject inner, object.Object("o"));
  ASSERT_OK_AND_ASSIGN(auto list, inner.Objects("list"));
  ASSERT_EQ(list.size(), 2u);
  EXPECT_EQ(list[1].PathOf("x"), "d: o.list[1].x");
  ASSERT_OK_AND_ASSIGN(JsonObject none, object.Object("missing"));
  EXPECT_EQ(*none.String("x"), "");
}

TEST_F(JsonObjectTest, NamesTheFieldOfAWrongType) {
  const JsonObject object = Make(R"({"s":1, "l":"x", "l2":["a",null],
      "m":[], "m2":{"k":1}, "o":[], "os":[null], "nul":"a\u0000b",
      "f":1.5, "neg":-1, "big":18446744073709551615, "str":"5"})");
  EXPECT_THAT(object.String("s"),
              StatusIs(kInvalid, "d: s: expected a string, found number"));
  EXPECT_THAT(object.Strings("l"),
              StatusIs(kInvalid, "d: l: expected an array, found string"));
  EXPECT_THAT(object.Strings("l2"),
              StatusIs(kInvalid, "d: l2[1]: expected a string, found null"));
  EXPECT_THAT(object.StringMap("m"),
              StatusIs(kInvalid, "d: m: expected an object, found array"));
  EXPECT_THAT(
      object.StringMap("m2"),
      StatusIs(kInvalid, "d: m2[\"k\"]: expected a string, found number"));
  EXPECT_THAT(object.Object("o"),
              StatusIs(kInvalid, "d: o: expected an object, found array"));
  EXPECT_THAT(object.Objects("os"),
              StatusIs(kInvalid, "d: os[0]: expected an object, found null"));
  EXPECT_THAT(object.String("nul"),
              StatusIs(kInvalid, HasSubstr("NUL character")));
  EXPECT_THAT(object.Size("f"), StatusIs(kInvalid, HasSubstr("an integer")));
  EXPECT_THAT(
      object.Size("neg"),
      StatusIs(kInvalid, HasSubstr("d: neg: -1 is not from 0 to 9223")));
  EXPECT_THAT(object.Size("big"),
              StatusIs(kInvalid, HasSubstr("to 9223372036854775807")));
  EXPECT_THAT(object.Size("str"), StatusIs(kInvalid, HasSubstr("an integer")));
  EXPECT_THAT(object.Size("none"), StatusIs(kInvalid, "d: none: missing"));
  EXPECT_THAT(JsonObject::Of(nlohmann::json(nullptr), "doc"),
              StatusIs(kInvalid, "doc: expected an object, found null"));
}

TEST_F(JsonObjectTest, ReadsIntegersWithinTheirRange) {
  const JsonObject object = Make(R"({"neg":-5, "one":1, "f":1.0, "e":1e3,
      "max":18446744073709551615, "huge":18446744073709551616,
      "min":-9223372036854775808, "t":true, "m":{"a":{"x":1},"b":{}},
      "bad":{"a":1}, "l":[0,7], "l2":[0,-1]})");
  constexpr int64_t kMin = std::numeric_limits<int64_t>::min();
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  constexpr uint64_t kBig = std::numeric_limits<uint64_t>::max();
  EXPECT_EQ(*object.Signed("neg", -5, 0), -5);
  EXPECT_EQ(*object.Signed("min", kMin, kMax), kMin);
  EXPECT_EQ(*object.Unsigned("max", kBig), kBig);
  EXPECT_EQ(*object.Unsigned("one", 1), 1u);
  EXPECT_THAT(object.Signed("neg", -4, 0),
              StatusIs(kInvalid, "d: neg: -5 is not from -4 to 0"));
  EXPECT_THAT(object.Signed("max", kMin, kMax),
              StatusIs(kInvalid, HasSubstr("18446744073709551615 is not")));
  EXPECT_THAT(object.Unsigned("neg", kBig),
              StatusIs(kInvalid, HasSubstr("-5 is not from 0 to")));
  for (const char* field : {"f", "e", "huge", "t"}) {
    EXPECT_THAT(object.Unsigned(field, kBig),
                StatusIs(kInvalid, HasSubstr("expected an integer")));
    EXPECT_THAT(object.Signed(field, kMin, kMax),
                StatusIs(kInvalid, HasSubstr("expected an integer")));
  }
  EXPECT_THAT(*object.Unsigneds("l", 7), ElementsAre(0, 7));
  EXPECT_THAT(*object.Unsigneds("missing", 7), ElementsAre());
  EXPECT_THAT(object.Unsigneds("l", 6),
              StatusIs(kInvalid, "d: l[1]: 7 is not from 0 to 6"));
  EXPECT_THAT(object.Unsigneds("l2", 6),
              StatusIs(kInvalid, "d: l2[1]: -1 is not from 0 to 6"));
  EXPECT_TRUE(*object.Bool("t"));
  EXPECT_FALSE(*object.Bool("missing"));
  EXPECT_THAT(object.Bool("one"),
              StatusIs(kInvalid, "d: one: expected a boolean, found number"));
  ASSERT_OK_AND_ASSIGN(auto map, object.ObjectMap("m"));
  ASSERT_EQ(map.size(), 2u);
  EXPECT_EQ(map.at("a").PathOf("x"), "d: m[\"a\"].x");
  EXPECT_THAT(
      object.ObjectMap("bad"),
      StatusIs(kInvalid, "d: bad[\"a\"]: expected an object, found number"));
}

}  // namespace
}  // namespace caisson
